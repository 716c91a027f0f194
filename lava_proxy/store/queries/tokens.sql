-- name: insert_token
-- Keeps the hash of a new forward token.
-- args: forward_token_id text, merchant_id text, token_hash bytea, hint text, test boolean,
--   customer_id text, meter_id text, disable_billing boolean, expires_at timestamptz,
--   spend_limit_e10 bigint, spend_cycle text, created_at timestamptz
INSERT INTO forward_tokens
    (forward_token_id, merchant_id, token_hash, hint, test, customer_id, meter_id,
     disable_billing, expires_at, spend_limit_e10, spend_cycle, created_at)
VALUES (:forward_token_id::text, :merchant_id::text, :token_hash::bytea, :hint::text,
        :test::boolean, :customer_id::text, :meter_id::text, :disable_billing::boolean,
        :expires_at::timestamptz, :spend_limit_e10::bigint, :spend_cycle::text,
        :created_at::timestamptz);

-- name: list_tokens
-- A merchant's forward tokens that are not revoked, behind a place in the list, newest first.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT t.forward_token_id, t.merchant_id, t.hint, t.test, t.customer_id, m.slug AS meter_slug,
       t.meter_id, t.disable_billing, t.expires_at, t.spend_limit_e10, t.spend_cycle, t.created_at,
       t.spent_e10
FROM forward_tokens t LEFT JOIN meters m USING (meter_id)
WHERE t.merchant_id = :merchant_id::text AND t.revoked_at IS NULL
  AND (t.created_at, t.forward_token_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY t.created_at DESC, t.forward_token_id DESC LIMIT :most::int;

-- name: revoke_token
-- Ends a forward token; no row comes back when it was not in force.
-- args: merchant_id text, forward_token_id text
UPDATE forward_tokens SET revoked_at = now()
WHERE merchant_id = :merchant_id::text AND forward_token_id = :forward_token_id::text
  AND revoked_at IS NULL
RETURNING forward_token_id;
