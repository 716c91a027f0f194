-- name: ledger_of_merchant
-- A merchant's ledger entries behind a place in the list, newest first.
-- args: merchant_id text, before bigint, most int
SELECT entry_id, transaction_id, account, amount_e10, kind, request_id, created_at
FROM ledger_entries
WHERE merchant_id = :merchant_id::text AND entry_id < :before::bigint
ORDER BY entry_id DESC LIMIT :most::int;

-- name: ledger_of_customer
-- The entries of one customer's transactions, newest first.
-- args: merchant_id text, customer_id text, before bigint, most int
SELECT entry_id, transaction_id, account, amount_e10, kind, request_id, created_at
FROM ledger_entries
WHERE merchant_id = :merchant_id::text AND customer_id = :customer_id::text
  AND entry_id < :before::bigint
ORDER BY entry_id DESC LIMIT :most::int;

-- name: ledger_of_request
-- The entries of one request's transaction, newest first; NULL means whichever customer's.
-- args: merchant_id text, request_id text, customer_id text, before bigint, most int
SELECT entry_id, transaction_id, account, amount_e10, kind, request_id, created_at
FROM ledger_entries
WHERE merchant_id = :merchant_id::text AND request_id = :request_id::text
  AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
  AND entry_id < :before::bigint
ORDER BY entry_id DESC LIMIT :most::int;

-- name: announce_credit
-- Tells every worker, at the commit, that an account's credit changed.
-- args: owner_id text
SELECT pg_notify('lava_credit', :owner_id::text);

-- name: recall
-- Asks other workers for idle credit of an account.
-- args: owner_id text, holder_id text
SELECT pg_notify('lava_recall', :owner_id::text || ' ' || :holder_id::text)::text;
