-- name: keep
-- Keeps a settlement whole that could not be booked as it was; once per request.
-- args: merchant_id text, request_id text, owner_id text, settlement bytea, error text, charge_e10 bigint, state text
INSERT INTO quarantine
    (merchant_id, request_id, owner_id, settlement, error, charge_e10, state, decided_at)
VALUES (:merchant_id::text, :request_id::text, :owner_id::text, :settlement::bytea, :error::text,
        :charge_e10::bigint, :state::text,
        CASE WHEN :state::text <> 'held' THEN clock_timestamp() END)
ON CONFLICT (merchant_id, request_id) DO NOTHING
RETURNING quarantine_id;

-- name: newest
-- Quarantined rows, newest first, with the credit that is held for each; only those that nobody
-- decided on, or all.
-- args: held_only bool, most int
SELECT q.quarantine_id, q.merchant_id, q.request_id, q.owner_id, q.error, q.charge_e10, q.state,
       q.created_at, q.settlement,
       (SELECT coalesce(sum(p.left_e10), 0)::bigint FROM leases l JOIN lease_parts p USING (lease_id)
        WHERE l.holder_id = 'quarantine_' || q.quarantine_id AND l.closed_at IS NULL) AS held_e10
FROM quarantine q
WHERE q.state = 'held' OR NOT :held_only::bool
ORDER BY q.quarantine_id DESC LIMIT :most::int;

-- name: lock_held
-- A quarantined row that nobody decided on, locked until the transaction ends.
-- args: quarantine_id bigint
SELECT quarantine_id, settlement FROM quarantine
WHERE quarantine_id = :quarantine_id::bigint AND state = 'held' FOR UPDATE;

-- name: held_ids
-- Quarantined rows that nobody decided on, oldest first.
SELECT quarantine_id FROM quarantine WHERE state = 'held' ORDER BY quarantine_id;

-- name: decide
-- Notes what became of a quarantined row.
-- args: quarantine_id bigint, state text
UPDATE quarantine SET state = :state::text, decided_at = clock_timestamp()
WHERE quarantine_id = :quarantine_id::bigint;
