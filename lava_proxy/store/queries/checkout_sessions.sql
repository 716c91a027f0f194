-- name: checkout_terms
-- What a new session names, as far as it is the merchant's, and the customer's plan. Always one row.
-- args: merchant_id text, customer text, plan_id text, credit_bundle_id text
SELECT c.customer_id, s.plan_id AS active_plan_id, p.plan_id, b.credit_bundle_id,
       b.plan_id AS bundle_plan_id
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
