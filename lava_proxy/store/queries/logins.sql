-- name: insert_code
-- Keeps the hash of a new code. Its time is the database's, so that any worker may use it.
-- args: code_hash bytea, secret_key_id text, lasts_s float8
INSERT INTO auth_codes (code_hash, secret_key_id, expires_at)
VALUES (:code_hash::bytea, :secret_key_id::text,
        clock_timestamp() + make_interval(secs => :lasts_s::float8));

-- name: use_code
-- Takes a code away and says whose it was; no row comes back when it is not there, over, used, or
-- its key was revoked meanwhile.
-- args: code_hash bytea
DELETE FROM auth_codes c USING secret_keys k
WHERE c.code_hash = :code_hash::bytea AND c.expires_at > clock_timestamp()
  AND k.secret_key_id = c.secret_key_id AND k.revoked_at IS NULL
RETURNING k.merchant_id, k.test;

-- name: prune_codes
-- Forgets codes that are over.
DELETE FROM auth_codes WHERE expires_at <= clock_timestamp();
