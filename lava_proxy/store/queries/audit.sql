-- name: grants_unbalanced
-- Grants whose parts do not add up, or whose leased part differs from the open leases' shares; since
-- a checkpoint only those that still have credit, because the others change no more.
-- args: since bigint, most int
SELECT g.grant_id, g.owner_id, g.amount_e10, g.leased_e10,
       coalesce(sum(p.left_e10), 0)::bigint AS shares_e10
FROM credit_grants g
LEFT JOIN lease_parts p ON p.grant_id = g.grant_id AND p.left_e10 > 0
WHERE :since::bigint = 0 OR g.available_e10 > 0 OR g.leased_e10 > 0
GROUP BY g.grant_id
HAVING g.amount_e10 <> g.available_e10 + g.leased_e10 + g.spent_e10 + g.expired_e10
                       + g.withdrawn_e10
    OR g.leased_e10 <> coalesce(sum(p.left_e10), 0)::bigint
LIMIT :most::int;

-- name: leases_unbalanced
-- Leases whose amount is not spent + returned + what their shares have left; since a checkpoint only
-- the open ones, because a closed one changes no more.
-- args: since bigint, most int
SELECT l.lease_id, l.owner_id, l.amount_e10, l.spent_e10, l.returned_e10,
       coalesce(sum(p.left_e10), 0)::bigint AS left_e10
FROM leases l LEFT JOIN lease_parts p USING (lease_id)
WHERE :since::bigint = 0 OR l.closed_at IS NULL
GROUP BY l.lease_id
HAVING l.amount_e10 <> l.spent_e10 + l.returned_e10 + coalesce(sum(p.left_e10), 0)::bigint
LIMIT :most::int;

-- name: accounts_unbalanced
-- Accounts whose credit differs from their ledger: the ledger's sum must be what is available and
-- leased, less what is owed. Ledger accounts of nobody's are differences too. A limit is no credit and
-- has no ledger: its own parts must add up (`grants_unbalanced`), and nothing may be owed on it.
-- args: since bigint, most int
WITH books AS (
    SELECT account, sum(amount_e10)::bigint AS ledger_e10
    FROM (
        SELECT account, amount_e10 FROM audit_ledger
        WHERE account LIKE 'customer:%' AND :since::bigint > 0
        UNION ALL
        SELECT account, amount_e10 FROM retired_ledger
        WHERE account LIKE 'customer:%' AND :since::bigint = 0
        UNION ALL
        SELECT account, amount_e10 FROM ledger_entries
        WHERE account LIKE 'customer:%' AND booked_xid >= :since::bigint
    ) AS entries GROUP BY account
), credit AS (
    SELECT owner_id, sum(available_e10 + leased_e10)::bigint AS credit_e10
    FROM credit_grants WHERE kind <> 'limit' GROUP BY owner_id
)
SELECT coalesce(a.owner_id, b.account) AS owner_id, coalesce(b.ledger_e10, 0)::bigint AS ledger_e10,
       (coalesce(c.credit_e10, 0) - coalesce(a.debt_e10, 0))::bigint AS credit_e10
FROM accounts a
FULL JOIN books b ON b.account = 'customer:' || a.owner_id
LEFT JOIN credit c ON c.owner_id = a.owner_id
WHERE coalesce(b.ledger_e10, 0) <> coalesce(c.credit_e10, 0) - coalesce(a.debt_e10, 0)
LIMIT :most::int;

-- name: wallets_unbalanced
-- Wallets into which something else was paid than their ledger says.
-- args: since bigint, most int
WITH books AS (
    SELECT account, sum(amount_e10)::bigint AS ledger_e10
    FROM (
        SELECT account, amount_e10 FROM audit_ledger
        WHERE account LIKE 'wallet:%' AND :since::bigint > 0
        UNION ALL
        SELECT account, amount_e10 FROM retired_ledger
        WHERE account LIKE 'wallet:%' AND :since::bigint = 0
        UNION ALL
        SELECT account, amount_e10 FROM ledger_entries
        WHERE account LIKE 'wallet:%' AND booked_xid >= :since::bigint
    ) AS entries GROUP BY account
)
SELECT coalesce('wallet:' || w.wallet_id, b.account) AS account,
       coalesce(b.ledger_e10, 0)::bigint AS ledger_e10,
       coalesce(w.funded_e10, 0)::bigint AS funded_e10
FROM wallets w FULL JOIN books b ON b.account = 'wallet:' || w.wallet_id
WHERE coalesce(b.ledger_e10, 0) <> coalesce(w.funded_e10, 0)
LIMIT :most::int;

-- name: wallet_costs_unbalanced
-- Merchants whose cost of managed keys differs from their quarters of an hour; only from the
-- beginning, because neither has a checkpoint.
-- args: since bigint, most int
SELECT merchant_id, coalesce(w.cost_e10, 0)::bigint AS cost_e10,
       coalesce(u.cost_e10, 0)::bigint AS rolled_e10
FROM (SELECT merchant_id, sum(cost_e10)::bigint AS cost_e10 FROM wallet_costs
      WHERE :since::bigint = 0 GROUP BY merchant_id) w
FULL JOIN (SELECT merchant_id, sum(managed_cost_e10)::bigint AS cost_e10 FROM usage_rollups
           WHERE :since::bigint = 0 GROUP BY merchant_id) u USING (merchant_id)
WHERE coalesce(w.cost_e10, 0) <> coalesce(u.cost_e10, 0)
LIMIT :most::int;

-- name: overdrafts_unbalanced
-- Accounts whose leased overdraft differs from the open leases' overdraft shares.
-- args: since bigint, most int
SELECT a.owner_id, a.overdraft_leased_e10, coalesce(sum(p.left_e10), 0)::bigint AS shares_e10
FROM accounts a
LEFT JOIN leases l ON l.owner_id = a.owner_id AND l.closed_at IS NULL
LEFT JOIN lease_parts p ON p.lease_id = l.lease_id AND p.grant_id IS NULL
WHERE :since::bigint = 0 OR a.overdraft_leased_e10 > 0 OR l.lease_id IS NOT NULL
GROUP BY a.owner_id
HAVING a.overdraft_leased_e10 <> coalesce(sum(p.left_e10), 0)::bigint
LIMIT :most::int;

-- name: transactions_unbalanced
-- Ledger transactions that do not sum to zero.
-- args: since bigint, most int
SELECT transaction_id, sum(amount_e10)::bigint AS sum_e10
FROM ledger_entries WHERE booked_xid >= :since::bigint
GROUP BY transaction_id HAVING sum(amount_e10) <> 0
LIMIT :most::int;

-- name: charges_unbalanced
-- Customers' requests whose charge differs from what the ledger took for them. A row that came
-- after its month was dropped is checked when it is new: its ledger entries go before it does.
-- args: since bigint, most int
SELECT r.merchant_id, r.request_id, r.charge_e10,
       coalesce(-sum(e.amount_e10), 0)::bigint AS ledger_e10
FROM requests r
LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id
LEFT JOIN ledger_entries e ON e.booked_xid >= :since::bigint AND e.merchant_id = r.merchant_id AND e.request_id = r.request_id
    AND e.account = 'customer:' || r.customer_id
WHERE r.customer_id IS NOT NULL AND r.booked_xid >= :since::bigint
  AND (:since::bigint > 0
       OR r.created_at >= (SELECT coalesce(max(upto), '-infinity') FROM retired_parts))
GROUP BY r.merchant_id, r.request_id, r.created_at, r.charge_e10, x.charge_change_e10
HAVING r.charge_e10 + coalesce(x.charge_change_e10, 0) <> coalesce(-sum(e.amount_e10), 0)::bigint
LIMIT :most::int;

-- name: costs_unbalanced
-- Requests whose provider cost differs from the ledger's; of late rows as above.
-- args: since bigint, most int
SELECT r.merchant_id, r.request_id, r.cost_e10, coalesce(sum(e.amount_e10), 0)::bigint AS ledger_e10
FROM requests r
LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id
LEFT JOIN ledger_entries e ON e.booked_xid >= :since::bigint AND e.merchant_id = r.merchant_id AND e.request_id = r.request_id
    AND e.account = 'provider:' || r.provider
WHERE r.booked_xid >= :since::bigint
  AND (:since::bigint > 0
       OR r.created_at >= (SELECT coalesce(max(upto), '-infinity') FROM retired_parts))
GROUP BY r.merchant_id, r.request_id, r.created_at, r.cost_e10, x.cost_change_e10
HAVING r.cost_e10 + coalesce(x.cost_change_e10, 0) <> coalesce(sum(e.amount_e10), 0)::bigint
LIMIT :most::int;

-- name: reratings_unbalanced
-- Re-rated requests whose changes differ from the ledger transaction that they name.
-- args: since bigint, most int
SELECT x.merchant_id, x.request_id, x.cost_change_e10, x.charge_change_e10,
       coalesce(sum(e.amount_e10) FILTER (WHERE e.account LIKE 'provider:%'), 0)::bigint
           AS ledger_cost_e10,
       coalesce(sum(e.amount_e10) FILTER (WHERE e.account LIKE 'merchant:%:revenue'), 0)::bigint
           AS ledger_charge_e10
FROM reratings x
LEFT JOIN ledger_entries e ON e.booked_xid >= :since::bigint AND e.merchant_id = x.merchant_id
    AND e.request_id = x.request_id AND e.transaction_id = x.transaction_id
WHERE x.booked_xid >= :since::bigint
  AND (:since::bigint > 0
       OR x.rerated_at >= (SELECT coalesce(max(upto), '-infinity') FROM retired_parts))
GROUP BY x.merchant_id, x.request_id, x.cost_change_e10, x.charge_change_e10
HAVING x.cost_change_e10
       <> coalesce(sum(e.amount_e10) FILTER (WHERE e.account LIKE 'provider:%'), 0)::bigint
    OR (count(e.customer_id) > 0 AND x.charge_change_e10
        <> coalesce(sum(e.amount_e10) FILTER (WHERE e.account LIKE 'merchant:%:revenue'), 0)::bigint)
LIMIT :most::int;

-- name: counters_unbalanced
-- Tier counters that differ from the units of their requests; those that are missing too.
-- args: since bigint, most int
SELECT owner_id, meter_id, cycle, coalesce(c.units, 0)::bigint AS units,
       coalesce(r.units, 0)::bigint AS rows_units
FROM usage_counters c
FULL JOIN (
    SELECT owner_id, meter_id, cycle, sum(units)::bigint AS units
    FROM (
        SELECT owner_id, meter_id, cycle, units FROM audit_units WHERE :since::bigint > 0
        UNION ALL
        SELECT owner_id, meter_id, cycle, units FROM retired_units WHERE :since::bigint = 0
        UNION ALL
        SELECT coalesce(customer_id, merchant_id), meter_id, cycle, units
        FROM requests
        WHERE meter_id IS NOT NULL AND status <> 'error' AND NOT ('unbilled' = ANY(flags))
          AND booked_xid >= :since::bigint
    ) AS counted GROUP BY 1, 2, 3
) r USING (owner_id, meter_id, cycle)
WHERE coalesce(c.units, 0) <> coalesce(r.units, 0)
LIMIT :most::int;

-- name: rollups_unbalanced
-- Quarters of an hour that differ from their requests in any figure; those that are missing too.
-- Since a checkpoint: the quarters that new rows belong to, with all of their rows. Quarters of
-- months that are not kept any more have no rows to compare with.
-- args: since bigint, most int
WITH kept AS (
    SELECT coalesce(max(upto), '-infinity') AS since FROM retired_parts
), touched AS (
    SELECT DISTINCT merchant_id, date_bin('15 minutes', created_at, 'epoch') AS bucket
    FROM requests WHERE :since::bigint > 0 AND booked_xid >= :since::bigint
    UNION
    SELECT merchant_id, date_bin('15 minutes', created_at, 'epoch')
    FROM reratings WHERE :since::bigint > 0 AND booked_xid >= :since::bigint
), counted AS (
    SELECT r.merchant_id, date_bin('15 minutes', r.created_at, 'epoch') AS bucket,
           coalesce(r.customer_id, '') AS customer_id, coalesce(r.meter_id, '') AS meter_id,
           ARRAY[count(*), sum(r.input_tokens)::bigint, sum(r.output_tokens)::bigint,
                 sum(r.input_characters)::bigint, sum(r.output_characters)::bigint,
                 sum(r.input_ms)::bigint, sum(r.output_ms)::bigint,
                 sum(r.cost_e10 + coalesce(x.cost_change_e10, 0))::bigint,
                 sum(r.charge_e10 + coalesce(x.charge_change_e10, 0))::bigint,
                 coalesce(sum(r.cost_e10 + coalesce(x.cost_change_e10, 0))
                              FILTER (WHERE r.provider_key_type = 'managed'),
                          0)::bigint] AS figures
    FROM requests r
    LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id
    WHERE :since::bigint = 0 OR EXISTS (
        SELECT FROM touched t WHERE t.merchant_id = r.merchant_id
          AND r.created_at >= t.bucket AND r.created_at < t.bucket + interval '15 minutes')
    GROUP BY 1, 2, 3, 4
), rolled AS (
    SELECT u.merchant_id, u.bucket, u.customer_id, u.meter_id,
           ARRAY[u.requests, u.input_tokens, u.output_tokens, u.input_characters,
                 u.output_characters, u.input_ms, u.output_ms, u.cost_e10, u.charge_e10,
                 u.managed_cost_e10] AS figures
    FROM usage_rollups u
    WHERE :since::bigint = 0 OR EXISTS (
        SELECT FROM touched t WHERE t.merchant_id = u.merchant_id AND t.bucket = u.bucket)
)
SELECT merchant_id, bucket, customer_id, meter_id, rolled.figures::text AS rollup,
       counted.figures::text AS rows
FROM rolled FULL JOIN counted USING (merchant_id, bucket, customer_id, meter_id)
WHERE rolled.figures IS DISTINCT FROM counted.figures AND bucket >= (SELECT since FROM kept)
LIMIT :most::int;

-- name: totals
-- What the audit looked at, and the sum over all customers for the one-line answer (no limits).
-- args: since bigint
SELECT (SELECT count(*) FROM requests WHERE booked_xid >= :since::bigint) AS requests,
       (SELECT count(*) FROM ledger_entries WHERE booked_xid >= :since::bigint) AS entries,
       (SELECT coalesce(sum(amount_e10 - withdrawn_e10), 0)::bigint FROM credit_grants
        WHERE kind <> 'limit')
           AS granted_e10,
       (SELECT coalesce(sum(available_e10), 0)::bigint FROM credit_grants
        WHERE kind <> 'limit') AS available_e10,
       (SELECT coalesce(sum(leased_e10), 0)::bigint FROM credit_grants
        WHERE kind <> 'limit') AS leased_e10,
       (SELECT coalesce(sum(spent_e10), 0)::bigint FROM credit_grants
        WHERE kind <> 'limit') AS spent_e10,
       (SELECT coalesce(sum(expired_e10), 0)::bigint FROM credit_grants
        WHERE kind <> 'limit') AS expired_e10,
       (SELECT coalesce(sum(debt_e10), 0)::bigint FROM accounts) AS debt_e10,
       (SELECT count(*) FROM quarantine WHERE state = 'held') AS quarantined,
       (SELECT coalesce(sum(charge_e10), 0)::bigint FROM quarantine WHERE state = 'held')
           AS quarantined_e10;

-- name: state
-- The last audit; where this snapshot stands: every transaction below `horizon_xid` is decided and
-- visible, or was rolled back; which server says so; and what is in quarantine unbooked.
SELECT s.upto_xid, s.server, s.differences,
       extract(epoch FROM clock_timestamp() - s.checked_at)::float8 AS age_s,
       extract(epoch FROM clock_timestamp() - s.sound_at)::float8 AS sound_age_s,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon_xid,
       (SELECT system_identifier FROM pg_control_system())::text AS here,
       (SELECT count(*) FROM quarantine WHERE state = 'held') AS quarantined,
       (SELECT coalesce(sum(charge_e10), 0)::bigint FROM quarantine WHERE state = 'held')
           AS quarantined_e10
FROM audit_state s;

-- name: alone
-- Whether no other process audits by routine now; so it is until this transaction ends.
SELECT pg_try_advisory_xact_lock(hashtext('lava audit'));

-- name: lock_state
-- One audit at a time moves the checkpoint.
SELECT upto_xid FROM audit_state FOR UPDATE;

-- name: forget_ledger
-- Sums from the beginning: the old ones go.
DELETE FROM audit_ledger;

-- name: forget_units
-- Sums from the beginning: the old ones go.
DELETE FROM audit_units;

-- name: keep_ledger
-- Adds the verified entries of customers and wallets to the checkpoint; from the beginning, those
-- too that were signed off and dropped.
-- args: since bigint, upto bigint
INSERT INTO audit_ledger AS a (account, amount_e10)
SELECT account, sum(amount_e10)::bigint
FROM (
    SELECT account, amount_e10 FROM ledger_entries
    WHERE (account LIKE 'customer:%' OR account LIKE 'wallet:%')
      AND booked_xid >= :since::bigint AND booked_xid < :upto::bigint
    UNION ALL
    SELECT account, amount_e10 FROM retired_ledger WHERE :since::bigint = 0
) AS verified
GROUP BY account
ON CONFLICT (account) DO UPDATE SET amount_e10 = a.amount_e10 + excluded.amount_e10;

-- name: keep_units
-- Adds the verified units of tiers to the checkpoint; from the beginning, those too that were signed
-- off and dropped.
-- args: since bigint, upto bigint
INSERT INTO audit_units AS a (owner_id, meter_id, cycle, units)
SELECT owner_id, meter_id, cycle, sum(units)::bigint
FROM (
    SELECT coalesce(customer_id, merchant_id) AS owner_id, meter_id, cycle, units
    FROM requests
    WHERE meter_id IS NOT NULL AND status <> 'error' AND NOT ('unbilled' = ANY(flags))
      AND booked_xid >= :since::bigint AND booked_xid < :upto::bigint
    UNION ALL
    SELECT owner_id, meter_id, cycle, units FROM retired_units WHERE :since::bigint = 0
) AS verified
GROUP BY 1, 2, 3
ON CONFLICT (owner_id, meter_id, cycle) DO UPDATE SET units = a.units + excluded.units;

-- name: keep_state
-- Notes an audit: how far the sums hold now, and what was found.
-- args: upto bigint, server text, differences int
UPDATE audit_state
SET upto_xid = :upto::bigint, server = :server::text, checked_at = clock_timestamp(),
    sound_at = CASE WHEN :differences::int = 0 THEN clock_timestamp() ELSE sound_at END,
    differences = :differences::int;
