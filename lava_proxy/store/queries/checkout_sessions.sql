-- name: checkout_terms
-- What a new session names, as far as it is the merchant's, and the customer's plan. Always one row.
-- args: merchant_id text, customer text, plan_id text, credit_bundle_id text, now timestamptz
SELECT c.customer_id, s.plan_id AS active_plan_id, p.plan_id, b.credit_bundle_id,
       b.plan_id AS bundle_plan_id, coalesce(p.period_amount_e10, b.cost_e10, 0) AS price_e10,
       coalesce(s.pending_type IS NOT NULL OR s.cycle_end_at <= :now::timestamptz, false)
           AS plan_ends
FROM (SELECT 1) AS one
LEFT JOIN customers c ON c.merchant_id = :merchant_id::text AND c.deleted_at IS NULL
    AND (c.customer_id = :customer::text OR c.reference_id = :customer::text)
LEFT JOIN subscriptions s ON s.customer_id = c.customer_id AND s.status = 'active'
LEFT JOIN plans p ON p.plan_id = :plan_id::text AND p.merchant_id = :merchant_id::text
    AND p.deleted_at IS NULL
LEFT JOIN credit_bundles b ON b.credit_bundle_id = :credit_bundle_id::text
    AND b.merchant_id = :merchant_id::text AND b.deleted_at IS NULL
ORDER BY c.customer_id <> :customer::text LIMIT 1;

-- name: insert_checkout_session
-- Opens a session; only the hash of its secret is kept.
-- args: checkout_session_id text, merchant_id text, secret_hash bytea, test bool,
--   checkout_mode text, origin_url text, customer_id text, plan_id text, credit_bundle_id text,
--   created_at timestamptz, expires_at timestamptz
INSERT INTO checkout_sessions (checkout_session_id, merchant_id, secret_hash, test, checkout_mode,
                               origin_url, customer_id, plan_id, credit_bundle_id, created_at,
                               expires_at)
VALUES (:checkout_session_id::text, :merchant_id::text, :secret_hash::bytea, :test::bool,
        :checkout_mode::text, :origin_url::text, :customer_id::text, :plan_id::text,
        :credit_bundle_id::text, :created_at::timestamptz, :expires_at::timestamptz);

-- name: find_checkout_session
-- A session with all that its page shows: what is sold as it is now, the customer's plan, and the
-- payment. What has ended (plan, bundle) is NULL.
-- args: secret_hash bytea, provider text
SELECT cs.checkout_session_id, cs.merchant_id, m.name AS merchant_name, cs.secret_hash, cs.test,
       cs.checkout_mode, cs.origin_url, cs.customer_id, cs.buyer_id, cs.buyer_name, cs.buyer_email,
       cs.redirect_url, cs.created_at, cs.expires_at, cs.completed_at,
       coalesce(nullif(c.email, ''), cs.buyer_email) AS email,
       c.deleted_at IS NOT NULL AS customer_gone,
       p.plan_id, p.name AS plan_name, p.period_amount_e10,
       coalesce(y.credit_e10, p.included_credit_e10) AS included_credit_e10,
       p.billing_interval,
       b.credit_bundle_id, b.plan_id AS bundle_plan_id, b.name AS bundle_name, b.cost_e10,
       coalesce(y.credit_e10, b.credit_e10) AS credit_e10,
       s.subscription_id, s.plan_id AS active_plan_id, s.cycle_end_at,
       s.pending_type IS NOT NULL AS plan_ends,
       coalesce(s.pending_plan_id = cs.plan_id, false) AS waits,
       s.past_due_since IS NOT NULL AS past_due, a.name AS active_name,
       a.period_amount_e10 AS active_amount_e10,
       y.payment_id, y.status AS payment_status, y.amount_e10 AS payment_amount_e10,
       y.attempts, y.provider_ref, y.error_message,
       y.next_attempt_at IS NULL AS answered,
       (SELECT r.payer_ref FROM payers r
        WHERE r.owner_id = coalesce(cs.customer_id, cs.buyer_id)
          AND r.provider = :provider::text) AS payer_ref
FROM checkout_sessions cs
JOIN merchants m ON m.merchant_id = cs.merchant_id
LEFT JOIN customers c ON c.customer_id = cs.customer_id
LEFT JOIN plans p ON p.plan_id = cs.plan_id AND p.deleted_at IS NULL
LEFT JOIN credit_bundles b ON b.credit_bundle_id = cs.credit_bundle_id AND b.deleted_at IS NULL
LEFT JOIN subscriptions s ON s.customer_id = cs.customer_id AND s.status = 'active'
LEFT JOIN plans a ON a.plan_id = s.plan_id
LEFT JOIN payments y ON y.payment_id = cs.payment_id
WHERE cs.secret_hash = :secret_hash::bytea;

-- name: lock_checkout_session
-- One tab at a time. The customer's account is locked before.
-- args: checkout_session_id text
SELECT checkout_session_id FROM checkout_sessions
WHERE checkout_session_id = :checkout_session_id::text FOR NO KEY UPDATE;

-- name: begin_checkout
-- Who buys, and the payment that this session has from now on.
-- args: checkout_session_id text, payment_id text, buyer_id text, buyer_name text, buyer_email text
UPDATE checkout_sessions
SET payment_id = :payment_id::text, buyer_id = coalesce(buyer_id, :buyer_id::text),
    buyer_name = :buyer_name::text, buyer_email = :buyer_email::text, redirect_url = NULL
WHERE checkout_session_id = :checkout_session_id::text;

-- name: set_redirect
-- Where the payment is to be made.
-- args: checkout_session_id text, redirect_url text
UPDATE checkout_sessions SET redirect_url = :redirect_url::text
WHERE checkout_session_id = :checkout_session_id::text;

-- name: buyer_of_session
-- The customer that a session's payment makes.
-- args: checkout_session_id text
SELECT merchant_id, buyer_id, buyer_name, buyer_email FROM checkout_sessions
WHERE checkout_session_id = :checkout_session_id::text;

-- name: complete_checkout
-- What was sold is delivered.
-- args: checkout_session_id text, customer_id text, now timestamptz
UPDATE checkout_sessions
SET completed_at = :now::timestamptz, customer_id = :customer_id::text, redirect_url = NULL
WHERE checkout_session_id = :checkout_session_id::text AND completed_at IS NULL;
