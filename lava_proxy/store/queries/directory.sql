-- name: key_by_hash
-- The owner of a secret key, if it is in force.
-- args: key_hash bytea
SELECT k.secret_key_id, k.test, m.merchant_id, m.name, m.upgrade_url, m.require_plan,
       m.fallback_chain
FROM secret_keys k JOIN merchants m USING (merchant_id)
WHERE k.key_hash = :key_hash::bytea AND k.revoked_at IS NULL;

-- name: token_by_hash
-- Whom a forward token stands for, if it is not revoked; its time is the caller's to check.
-- args: token_hash bytea
SELECT t.forward_token_id, t.test, t.customer_id, t.meter_id, t.disable_billing, t.expires_at,
       t.spend_limit_e10, t.spend_cycle, m.merchant_id, m.name, m.upgrade_url, m.require_plan, m.fallback_chain
FROM forward_tokens t JOIN merchants m USING (merchant_id)
WHERE t.token_hash = :token_hash::bytea AND t.revoked_at IS NULL;

-- name: spend_key_by_hash
-- A spend key and its merchant, unless it was revoked.
-- args: key_hash bytea
SELECT k.spend_key_id, k.status, k.request_shape, k.allowed_models, k.allowed_providers,
       k.spend_limit_e10, k.spend_cycle, k.request_limit, k.request_cycle, k.rate_rpm,
       k.rate_burst, k.expires_at, m.merchant_id, m.name, m.upgrade_url, m.require_plan,
       m.fallback_chain
FROM spend_keys k JOIN merchants m USING (merchant_id)
WHERE k.key_hash = :key_hash::bytea AND k.deleted_at IS NULL;

-- name: customer_by_id
-- A customer of a merchant by our id or by the merchant's own, with its active subscription.
-- args: merchant_id text, customer text
SELECT c.customer_id, c.merchant_id, c.reference_id, s.subscription_id, s.cycle_seq, s.cycle_end_at,
       ARRAY(SELECT meter_id FROM plan_meters pm WHERE pm.plan_id = s.plan_id) AS meter_ids
FROM customers c
LEFT JOIN subscriptions s ON s.customer_id = c.customer_id AND s.status = 'active'
WHERE c.merchant_id = :merchant_id::text AND c.deleted_at IS NULL
  AND (c.customer_id = :customer::text OR c.reference_id = :customer::text)
ORDER BY c.customer_id <> :customer::text LIMIT 1;

-- name: meter_by_slug
-- A meter of a merchant by slug or id.
-- args: merchant_id text, meter text
SELECT meter_id, merchant_id, slug, rate_type, tier_type, tiers, enforcement, overdraft_e10,
       unpriced
FROM meters
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (slug = :meter::text OR meter_id = :meter::text)
ORDER BY meter_id <> :meter::text LIMIT 1;

-- name: meter_by_id
-- A meter by id, deleted or not: replay must charge what was promised.
-- args: meter_id text
SELECT meter_id, merchant_id, slug, rate_type, tier_type, tiers, enforcement, overdraft_e10,
       unpriced
FROM meters WHERE meter_id = :meter_id::text;

-- name: changes_since
-- What changed lately, a little overlap included: commits may appear out of order.
-- args: seconds float8
SELECT change_id, kind, object_id FROM changes
WHERE changed_at > clock_timestamp() - make_interval(secs => :seconds::float8)
ORDER BY change_id;

-- name: prune_changes
-- Forgets changes that every worker has seen long ago.
-- args: seconds float8
DELETE FROM changes
WHERE changed_at < clock_timestamp() - make_interval(secs => :seconds::float8);

-- name: customers_named
-- Customers of any merchant with this id or reference.
-- args: customer text
SELECT customer_id FROM customers
WHERE deleted_at IS NULL
  AND (customer_id = :customer::text OR reference_id = :customer::text)
LIMIT 3;

-- name: backend_pid
-- The server process that answers.
SELECT pg_backend_pid();
