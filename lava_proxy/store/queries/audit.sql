-- name: grants_unbalanced
-- Grants whose parts do not add up, or whose leased part differs from the open leases' shares.
-- args: most int
SELECT g.grant_id, g.owner_id, g.amount_e10, g.leased_e10,
       coalesce(sum(p.left_e10), 0)::bigint AS shares_e10
FROM credit_grants g
LEFT JOIN lease_parts p ON p.grant_id = g.grant_id AND p.left_e10 > 0
GROUP BY g.grant_id
HAVING g.amount_e10 <> g.available_e10 + g.leased_e10 + g.spent_e10 + g.expired_e10
                       + g.withdrawn_e10
    OR g.leased_e10 <> coalesce(sum(p.left_e10), 0)::bigint
LIMIT :most::int;

-- name: leases_unbalanced
-- Leases whose amount is not spent + returned + what their shares have left.
-- args: most int
SELECT l.lease_id, l.owner_id, l.amount_e10, l.spent_e10, l.returned_e10,
       coalesce(sum(p.left_e10), 0)::bigint AS left_e10
FROM leases l LEFT JOIN lease_parts p USING (lease_id)
GROUP BY l.lease_id
HAVING l.amount_e10 <> l.spent_e10 + l.returned_e10 + coalesce(sum(p.left_e10), 0)::bigint
LIMIT :most::int;

-- name: accounts_unbalanced
-- Accounts whose credit differs from their ledger: the ledger's sum must be what is available and
-- leased, less what is owed. Ledger accounts of nobody's are differences too.
-- args: most int
WITH books AS (
    SELECT account, sum(amount_e10)::bigint AS ledger_e10
    FROM ledger_entries WHERE account LIKE 'customer:%' GROUP BY account
), credit AS (
    SELECT owner_id, sum(available_e10 + leased_e10)::bigint AS credit_e10
    FROM credit_grants GROUP BY owner_id
)
SELECT coalesce(a.owner_id, b.account) AS owner_id, coalesce(b.ledger_e10, 0)::bigint AS ledger_e10,
       (coalesce(c.credit_e10, 0) - coalesce(a.debt_e10, 0))::bigint AS credit_e10
FROM accounts a
FULL JOIN books b ON b.account = 'customer:' || a.owner_id
LEFT JOIN credit c ON c.owner_id = a.owner_id
WHERE coalesce(b.ledger_e10, 0) <> coalesce(c.credit_e10, 0) - coalesce(a.debt_e10, 0)
LIMIT :most::int;

-- name: overdrafts_unbalanced
-- Accounts whose leased overdraft differs from the open leases' overdraft shares.
-- args: most int
SELECT a.owner_id, a.overdraft_leased_e10, coalesce(sum(p.left_e10), 0)::bigint AS shares_e10
FROM accounts a
LEFT JOIN leases l ON l.owner_id = a.owner_id AND l.closed_at IS NULL
LEFT JOIN lease_parts p ON p.lease_id = l.lease_id AND p.grant_id IS NULL
GROUP BY a.owner_id
HAVING a.overdraft_leased_e10 <> coalesce(sum(p.left_e10), 0)::bigint
LIMIT :most::int;

-- name: transactions_unbalanced
-- Ledger transactions that do not sum to zero.
-- args: most int
SELECT transaction_id, sum(amount_e10)::bigint AS sum_e10
FROM ledger_entries GROUP BY transaction_id HAVING sum(amount_e10) <> 0
LIMIT :most::int;

-- name: charges_unbalanced
-- Customers' requests whose charge differs from what the ledger took for them.
-- args: most int
SELECT r.merchant_id, r.request_id, r.charge_e10,
       coalesce(-sum(e.amount_e10), 0)::bigint AS ledger_e10
FROM requests r
LEFT JOIN ledger_entries e ON e.merchant_id = r.merchant_id AND e.request_id = r.request_id
    AND e.account = 'customer:' || r.customer_id
WHERE r.customer_id IS NOT NULL
GROUP BY r.merchant_id, r.request_id, r.created_at, r.charge_e10
HAVING r.charge_e10 <> coalesce(-sum(e.amount_e10), 0)::bigint
LIMIT :most::int;

-- name: costs_unbalanced
-- Requests whose provider cost differs from the ledger's.
-- args: most int
SELECT r.merchant_id, r.request_id, r.cost_e10, coalesce(sum(e.amount_e10), 0)::bigint AS ledger_e10
FROM requests r
LEFT JOIN ledger_entries e ON e.merchant_id = r.merchant_id AND e.request_id = r.request_id
    AND e.account = 'provider:' || r.provider
GROUP BY r.merchant_id, r.request_id, r.created_at, r.cost_e10
HAVING r.cost_e10 <> coalesce(sum(e.amount_e10), 0)::bigint
LIMIT :most::int;

-- name: counters_unbalanced
-- Tier counters that differ from the units of their requests; those that are missing too.
-- args: most int
SELECT owner_id, meter_id, cycle, coalesce(c.units, 0)::bigint AS units,
       coalesce(r.units, 0)::bigint AS rows_units
FROM usage_counters c
FULL JOIN (
    SELECT coalesce(customer_id, merchant_id) AS owner_id, meter_id, cycle,
           sum(units)::bigint AS units
    FROM requests
    WHERE meter_id IS NOT NULL AND status <> 'error' AND NOT ('unbilled' = ANY(flags))
    GROUP BY 1, 2, 3
) r USING (owner_id, meter_id, cycle)
WHERE coalesce(c.units, 0) <> coalesce(r.units, 0)
LIMIT :most::int;

-- name: totals
-- What the audit looked at, and the sum over all customers for the one-line answer.
SELECT (SELECT count(*) FROM requests) AS requests,
       (SELECT count(*) FROM ledger_entries) AS entries,
       (SELECT coalesce(sum(amount_e10 - withdrawn_e10), 0)::bigint FROM credit_grants)
           AS granted_e10,
       (SELECT coalesce(sum(available_e10), 0)::bigint FROM credit_grants) AS available_e10,
       (SELECT coalesce(sum(leased_e10), 0)::bigint FROM credit_grants) AS leased_e10,
       (SELECT coalesce(sum(spent_e10), 0)::bigint FROM credit_grants) AS spent_e10,
       (SELECT coalesce(sum(expired_e10), 0)::bigint FROM credit_grants) AS expired_e10,
       (SELECT coalesce(sum(debt_e10), 0)::bigint FROM accounts) AS debt_e10;
