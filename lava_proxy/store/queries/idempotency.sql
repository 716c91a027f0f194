-- name: claim_key
-- Takes an idempotency key that nobody used since :oldest; no row comes back when somebody did.
-- Whoever takes the same key at the same time waits here for the first one's commit.
-- args: merchant_id text, key text, body_hash bytea, now timestamptz, oldest timestamptz
INSERT INTO idempotency_keys AS k (merchant_id, key, body_hash, status, answer, created_at)
VALUES (:merchant_id::text, :key::text, :body_hash::bytea, 0, '', :now::timestamptz)
ON CONFLICT (merchant_id, key) DO UPDATE
SET body_hash = excluded.body_hash, status = 0, answer = '', created_at = excluded.created_at
WHERE k.created_at < :oldest::timestamptz
RETURNING true;

-- name: find_key
-- What a taken key was used for, and the answer; status 0 while there is none.
-- args: merchant_id text, key text
SELECT body_hash, status, answer, created_at FROM idempotency_keys
WHERE merchant_id = :merchant_id::text AND key = :key::text;

-- name: answer_key
-- Keeps the answer that repetitions will get.
-- args: merchant_id text, key text, status int, answer bytea
UPDATE idempotency_keys SET status = :status::int, answer = :answer::bytea
WHERE merchant_id = :merchant_id::text AND key = :key::text;

-- name: free_key
-- Gives a key back whose work failed, unless it was answered meanwhile.
-- args: merchant_id text, key text, body_hash bytea
DELETE FROM idempotency_keys
WHERE merchant_id = :merchant_id::text AND key = :key::text AND body_hash = :body_hash::bytea
  AND status = 0;

-- name: prune_keys
-- Forgets keys that anybody may take again.
-- args: oldest timestamptz
DELETE FROM idempotency_keys WHERE created_at < :oldest::timestamptz;
