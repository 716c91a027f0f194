-- name: lock_merchants
-- Lets one at a time decide whether a merchant of some name is new, until its transaction ends.
SELECT pg_advisory_xact_lock(hashtext('lava_merchants'));

-- name: merchant_named
-- The merchant of an id, the oldest of a name or, where any will do and none has it, of all.
-- args: name text, or_first boolean
SELECT merchant_id FROM merchants
WHERE merchant_id = :name::text OR name = :name::text OR :or_first::boolean
ORDER BY merchant_id <> :name::text, name <> :name::text, created_at, merchant_id LIMIT 1;

-- name: create_merchant
-- Makes a merchant and the account that its own, customerless traffic is counted on.
-- args: merchant_id text, name text
WITH made AS (
    INSERT INTO merchants (merchant_id, name) VALUES (:merchant_id::text, :name::text)
    RETURNING merchant_id
)
INSERT INTO accounts (owner_id, merchant_id) SELECT merchant_id, merchant_id FROM made;

-- name: create_key
-- Keeps the hash of a new secret key.
-- args: secret_key_id text, merchant_id text, name text, key_hash bytea, hint text, test boolean
INSERT INTO secret_keys (secret_key_id, merchant_id, name, key_hash, hint, test)
VALUES (:secret_key_id::text, :merchant_id::text, :name::text, :key_hash::bytea, :hint::text,
        :test::boolean)
RETURNING secret_key_id, name, hint, test, created_at;

-- name: list_keys
-- A merchant's keys in force behind a place in the list, newest first.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT secret_key_id, name, hint, test, created_at
FROM secret_keys
WHERE merchant_id = :merchant_id::text AND revoked_at IS NULL
  AND (created_at, secret_key_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, secret_key_id DESC LIMIT :most::int;

-- name: revoke_key
-- Ends a key; no row comes back when it was not in force.
-- args: merchant_id text, secret_key_id text
UPDATE secret_keys SET revoked_at = now()
WHERE merchant_id = :merchant_id::text AND secret_key_id = :secret_key_id::text
  AND revoked_at IS NULL
RETURNING secret_key_id;

-- name: lock_keys
-- A merchant's keys in force; they stay as they are until the transaction ends.
-- args: merchant_id text
SELECT secret_key_id FROM secret_keys
WHERE merchant_id = :merchant_id::text AND revoked_at IS NULL
ORDER BY secret_key_id FOR UPDATE;
