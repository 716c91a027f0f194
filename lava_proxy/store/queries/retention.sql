-- name: old_parts
-- Partitions whose months ended before a time, oldest first, and when each month ends. Names say
-- which month: they come from ensure_partitions.
-- args: before timestamptz
SELECT c.relname AS part, p.relname AS parent, m.ends_at
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
JOIN pg_class p ON p.oid = i.inhparent
CROSS JOIN LATERAL (
    SELECT (to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month') AT TIME ZONE 'UTC'
) AS m(ends_at)
WHERE p.relname IN ('requests', 'ledger_entries') AND c.relname ~ '_[0-9]{6}$'
  AND m.ends_at <= :before::timestamptz
ORDER BY m.ends_at, c.relname DESC;

-- name: lock_audit
-- Up to where the books are verified; no audit moves that meanwhile. NULL when the last one found
-- something, or was another server's.
SELECT CASE WHEN differences = 0
             AND server = (SELECT system_identifier FROM pg_control_system())::text
            THEN upto_xid END
FROM audit_state FOR UPDATE;

-- name: verified_entries
-- How many rows a partition of the ledger has; NULL when some are not verified yet.
-- args: after timestamptz, before timestamptz, upto bigint
SELECT CASE WHEN coalesce(max(booked_xid), 0) < :upto::bigint THEN count(*) END
FROM ledger_entries
WHERE created_at >= :after::timestamptz AND created_at < :before::timestamptz;

-- name: verified_requests
-- How many rows a partition of the requests has; NULL when some are not verified yet.
-- args: after timestamptz, before timestamptz, upto bigint
SELECT CASE WHEN coalesce(max(booked_xid), 0) < :upto::bigint THEN count(*) END
FROM requests
WHERE created_at >= :after::timestamptz AND created_at < :before::timestamptz;

-- name: sign_off
-- Notes that a partition goes, and what was in it; nothing comes back when it is gone already.
-- args: part text, upto timestamptz, entries bigint, upto_xid bigint
INSERT INTO retired_parts (part, upto, entries, upto_xid)
VALUES (:part::text, :upto::timestamptz, :entries::bigint, :upto_xid::bigint)
ON CONFLICT DO NOTHING RETURNING part;

-- name: sum_ledger
-- Keeps what a month's entries of each customer and wallet sum up to.
-- args: part text, after timestamptz, before timestamptz
INSERT INTO retired_ledger (part, account, amount_e10)
SELECT :part::text, account, sum(amount_e10)::bigint FROM ledger_entries
WHERE (account LIKE 'customer:%' OR account LIKE 'wallet:%')
  AND created_at >= :after::timestamptz AND created_at < :before::timestamptz
GROUP BY account;

-- name: sum_units
-- Keeps what a month's requests add to each tier scope.
-- args: part text, after timestamptz, before timestamptz
INSERT INTO retired_units (part, owner_id, meter_id, cycle, units)
SELECT :part::text, coalesce(customer_id, merchant_id), meter_id, cycle, sum(units)::bigint
FROM requests
WHERE meter_id IS NOT NULL AND status <> 'error' AND NOT ('unbilled' = ANY(flags))
  AND created_at >= :after::timestamptz AND created_at < :before::timestamptz
GROUP BY 2, 3, 4;

-- name: drop_part
-- Drops a partition by name; checked by the function that it is an old month's.
-- args: part text
SELECT drop_month(:part::text);
