-- name: first_merchant
-- The oldest merchant.
SELECT merchant_id FROM merchants ORDER BY created_at, merchant_id LIMIT 1;

-- name: insert_merchant
-- Adds a merchant.
-- args: merchant_id text, name text
INSERT INTO merchants (merchant_id, name) VALUES (:merchant_id::text, :name::text);

-- name: lock_merchants
-- Keeps a second process from making the first merchant too.
SELECT pg_advisory_xact_lock(hashtext('lava first merchant'))::text;

-- name: insert_key
-- Adds a secret key, hashed.
-- args: secret_key_id text, merchant_id text, name text, key_hash bytea, hint text, test boolean
INSERT INTO secret_keys (secret_key_id, merchant_id, name, key_hash, hint, test)
VALUES (:secret_key_id::text, :merchant_id::text, :name::text, :key_hash::bytea, :hint::text,
        :test::boolean);

-- name: revoke_key
-- Ends a key; true when it was in force.
-- args: merchant_id text, secret_key_id text, now timestamptz
UPDATE secret_keys SET revoked_at = :now::timestamptz
WHERE merchant_id = :merchant_id::text AND secret_key_id = :secret_key_id::text
  AND revoked_at IS NULL
RETURNING true;
