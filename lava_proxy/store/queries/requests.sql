-- name: request
-- One request by its id.
-- args: merchant_id text, request_id text
SELECT r.* FROM request_ids i
JOIN requests r ON r.merchant_id = i.merchant_id AND r.request_id = i.request_id
    AND r.created_at = i.created_at
WHERE i.merchant_id = :merchant_id::text AND i.request_id = :request_id::text;

-- name: requests_page
-- A page of requests, newest first, from behind a cursor; each filter counts when it is given.
-- args: merchant_id text, customer_id text, meter_id text, metadata jsonb, before_at timestamptz,
--   before_id text, most int
SELECT * FROM requests
WHERE merchant_id = :merchant_id::text
  AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
  AND (:meter_id::text IS NULL OR meter_id = :meter_id::text)
  AND (:metadata::jsonb IS NULL OR metadata @> :metadata::jsonb)
  AND (created_at, request_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, request_id DESC LIMIT :most::int;

-- name: ledger_page
-- A page of ledger entries, newest first; each filter counts when it is given.
-- args: merchant_id text, customer_id text, request_id text, before_id bigint, most int
SELECT entry_id, transaction_id, account, amount_e10, kind, request_id, created_at
FROM ledger_entries
WHERE merchant_id = :merchant_id::text
  AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
  AND (:request_id::text IS NULL OR request_id = :request_id::text)
  AND entry_id < :before_id::bigint
ORDER BY entry_id DESC LIMIT :most::int;

-- name: claim_idempotency
-- Claims an Idempotency-Key; a twin waits here until the first one has committed.
-- args: merchant_id text, key text, body_hash bytea
INSERT INTO idempotency_keys (merchant_id, key, body_hash, status, answer)
VALUES (:merchant_id::text, :key::text, :body_hash::bytea, 0, '')
ON CONFLICT DO NOTHING RETURNING key;

-- name: idempotent_answer
-- What was answered under a key before.
-- args: merchant_id text, key text
SELECT body_hash, status, answer FROM idempotency_keys
WHERE merchant_id = :merchant_id::text AND key = :key::text;

-- name: keep_answer
-- Remembers the answer under its key.
-- args: merchant_id text, key text, status int, answer bytea
UPDATE idempotency_keys SET status = :status::int, answer = :answer::bytea
WHERE merchant_id = :merchant_id::text AND key = :key::text;

-- name: prune_idempotency
-- Forgets keys older than so many days.
-- args: days int
DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(days => :days::int);

-- name: tell_credit
-- Tells every worker that an account's credit changed.
-- args: owner_id text
SELECT pg_notify('lava_credit', :owner_id::text)::text;
