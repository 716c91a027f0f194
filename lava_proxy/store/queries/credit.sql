-- name: insert_account
-- Opens an account; harmless when it is open.
-- args: owner_id text, merchant_id text
INSERT INTO accounts (owner_id, merchant_id) VALUES (:owner_id::text, :merchant_id::text)
ON CONFLICT DO NOTHING;

-- name: insert_limit
-- The one grant of a limit's account; harmless when it is there.
-- args: owner_id text, merchant_id text, amount bigint
INSERT INTO credit_grants (grant_id, owner_id, merchant_id, kind, amount_e10, available_e10)
VALUES (:owner_id::text, :owner_id::text, :merchant_id::text, 'limit', :amount::bigint,
        :amount::bigint)
ON CONFLICT DO NOTHING;

-- name: move_limit
-- Brings a limit to its present size: up at once, down as far as it is free.
-- args: owner_id text, amount bigint
UPDATE credit_grants
SET amount_e10 = amount_e10 + greatest(:amount::bigint - amount_e10, -available_e10),
    available_e10 = available_e10 + greatest(:amount::bigint - amount_e10, -available_e10)
WHERE grant_id = :owner_id::text AND kind = 'limit' AND amount_e10 <> :amount::bigint;

-- name: insert_grant
-- Adds credit; `spent` is what old debt takes at once.
-- args: grant_id text, owner_id text, merchant_id text, kind text, amount bigint, spent bigint,
--   expires_at timestamptz, note text, created_at timestamptz
INSERT INTO credit_grants (grant_id, owner_id, merchant_id, kind, amount_e10, available_e10,
                           spent_e10, expires_at, note, created_at)
VALUES (:grant_id::text, :owner_id::text, :merchant_id::text, :kind::text, :amount::bigint,
        :amount::bigint - :spent::bigint, :spent::bigint, :expires_at::timestamptz, :note::text,
        :created_at::timestamptz);

-- name: withdraw_grants
-- Takes credit back by an operator's correction.
-- args: grant_ids text[], amounts bigint[]
UPDATE credit_grants g
SET available_e10 = g.available_e10 - t.amount, withdrawn_e10 = g.withdrawn_e10 + t.amount
FROM unnest(:grant_ids::text[], :amounts::bigint[]) AS t(grant_id, amount)
WHERE g.grant_id = t.grant_id;

-- name: expire_grants
-- Moves what is left of expired grants out of reach; returns the amounts for the ledger.
-- args: owner_id text, now timestamptz
UPDATE credit_grants g
SET available_e10 = 0, expired_e10 = g.expired_e10 + o.available_e10
FROM (SELECT grant_id, available_e10 FROM credit_grants
      WHERE owner_id = :owner_id::text AND available_e10 > 0
        AND expires_at <= :now::timestamptz FOR UPDATE) o
WHERE g.grant_id = o.grant_id
RETURNING g.grant_id, o.available_e10 AS amount_e10;

-- name: lease_by_id
-- A lease that was asked for before, with its owner: an ambiguous commit is retried, never doubled.
-- args: lease_id text
SELECT lease_id, owner_id, holder_id, amount_e10, closed_at FROM leases
WHERE lease_id = :lease_id::text;

-- name: leased_by_others
-- Credit of an account that other holders have.
-- args: owner_id text, holder_id text
SELECT coalesce(sum(amount_e10 - spent_e10 - returned_e10), 0)::bigint AS amount_e10
FROM leases WHERE owner_id = :owner_id::text AND closed_at IS NULL
  AND holder_id <> :holder_id::text;

-- name: insert_lease
-- Opens a lease. Its time is the database's: no worker's wall clock may cut it short.
-- args: lease_id text, owner_id text, holder_id text, amount bigint, lease_s float8
INSERT INTO leases (lease_id, owner_id, holder_id, amount_e10, created_at, expires_at)
VALUES (:lease_id::text, :owner_id::text, :holder_id::text, :amount::bigint, clock_timestamp(),
        clock_timestamp() + make_interval(secs => :lease_s::float8));

-- name: insert_parts
-- Splits a lease over the grants that it takes from.
-- args: lease_id text, seqs int[], grant_ids text[], amounts bigint[]
WITH parts AS (
    SELECT * FROM unnest(:seqs::int[], :grant_ids::text[], :amounts::bigint[])
        AS t(seq, grant_id, amount)
), inserted AS (
    INSERT INTO lease_parts (lease_id, seq, grant_id, amount_e10, left_e10)
    SELECT :lease_id::text, seq, grant_id, amount, amount FROM parts
)
UPDATE credit_grants g
SET available_e10 = g.available_e10 - p.amount, leased_e10 = g.leased_e10 + p.amount
FROM parts p WHERE g.grant_id = p.grant_id;

-- name: renew_leases
-- Gives all leases of a holder on an account the same new expiry, by the database's clock; answers
-- how many there are.
-- args: owner_id text, holder_id text, lease_s float8
WITH renewed AS (
    UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => :lease_s::float8)
    WHERE owner_id = :owner_id::text AND holder_id = :holder_id::text AND closed_at IS NULL
    RETURNING 1
)
SELECT count(*) FROM renewed;

-- name: open_parts_newest_first
-- What can come back from a holder's leases, in reverse burn order.
-- args: owner_id text, holder_id text
SELECT p.lease_id, p.seq, p.grant_id, p.left_e10
FROM leases l JOIN lease_parts p USING (lease_id)
WHERE l.owner_id = :owner_id::text AND l.holder_id = :holder_id::text
  AND l.closed_at IS NULL AND p.left_e10 > 0
ORDER BY l.created_at DESC, p.lease_id DESC, p.seq DESC;

-- name: return_parts
-- Gives shares of leases back to their grants; an expired grant's share becomes expired.
-- args: lease_ids text[], seqs int[], amounts bigint[], now timestamptz
WITH given AS (
    UPDATE lease_parts p SET left_e10 = p.left_e10 - t.amount
    FROM unnest(:lease_ids::text[], :seqs::int[], :amounts::bigint[]) AS t(lease_id, seq, amount)
    WHERE p.lease_id = t.lease_id AND p.seq = t.seq
    RETURNING p.lease_id, p.grant_id, t.amount
), per_lease AS (
    UPDATE leases l
    SET returned_e10 = l.returned_e10 + s.amount,
        closed_at = CASE WHEN l.amount_e10 = l.spent_e10 + l.returned_e10 + s.amount
                         THEN :now::timestamptz END
    FROM (SELECT lease_id, sum(amount)::bigint AS amount FROM given GROUP BY lease_id) s
    WHERE l.lease_id = s.lease_id
)
UPDATE credit_grants g
SET leased_e10 = g.leased_e10 - s.amount, available_e10 = g.available_e10 + s.amount
FROM (SELECT grant_id, sum(amount)::bigint AS amount FROM given
      WHERE grant_id IS NOT NULL GROUP BY grant_id) s
WHERE g.grant_id = s.grant_id;

-- name: close_spent_leases
-- Closes leases of an account that have nothing left.
-- args: owner_id text, now timestamptz
UPDATE leases SET closed_at = :now::timestamptz
WHERE owner_id = :owner_id::text AND closed_at IS NULL
  AND amount_e10 = spent_e10 + returned_e10;

-- name: holder_owners
-- The accounts on which a holder has open leases.
-- args: holder_id text
SELECT DISTINCT owner_id FROM leases
WHERE holder_id = :holder_id::text AND closed_at IS NULL ORDER BY owner_id;

-- name: kept_leases
-- What is open under these holders' names on accounts of their merchants.
-- args: merchant_ids text[], holder_ids text[]
SELECT DISTINCT l.owner_id, l.holder_id
FROM unnest(:merchant_ids::text[], :holder_ids::text[]) AS t(merchant_id, holder_id)
JOIN leases l USING (holder_id) JOIN accounts a USING (owner_id)
WHERE l.closed_at IS NULL AND a.merchant_id = t.merchant_id ORDER BY 1, 2;

-- name: clock
-- The clock by which leases are judged.
SELECT extract(epoch FROM now())::float8;

-- name: expired_leases
-- Holders and accounts whose leases are over, grace included, by the database's clock.
-- args: grace_s float8, most int
SELECT DISTINCT owner_id, holder_id FROM leases
WHERE closed_at IS NULL AND expires_at < now() - make_interval(secs => :grace_s::float8)
ORDER BY owner_id LIMIT :most::int;

-- name: still_over
-- Whether a holder's leases on an account are over; asked again under the account's lock.
-- args: owner_id text, holder_id text, grace_s float8
SELECT EXISTS (
    SELECT FROM leases
    WHERE owner_id = :owner_id::text AND holder_id = :holder_id::text AND closed_at IS NULL
      AND expires_at < now() - make_interval(secs => :grace_s::float8));

-- name: grants_of
-- All grants of an account, newest first.
-- args: owner_id text
SELECT grant_id, kind, amount_e10, available_e10, leased_e10, spent_e10, expired_e10,
       withdrawn_e10, expires_at, note, created_at
FROM credit_grants WHERE owner_id = :owner_id::text ORDER BY created_at DESC, grant_id DESC;

-- name: balance
-- What an account has: free, in workers' hands, owed, and by kind.
-- args: owner_id text
SELECT a.debt_e10,
       coalesce(sum(g.free_e10), 0)::bigint AS available_e10,
       coalesce(sum(g.leased_e10), 0)::bigint AS leased_e10,
       coalesce(sum(g.free_e10 + g.leased_e10) FILTER (WHERE g.kind = 'cycle'), 0)::bigint
           AS cycle_e10,
       coalesce(sum(g.free_e10 + g.leased_e10) FILTER (WHERE g.kind <> 'cycle'), 0)::bigint
           AS bundle_e10
FROM accounts a
LEFT JOIN (
    SELECT owner_id, kind, leased_e10,
           CASE WHEN expires_at <= now() THEN 0 ELSE available_e10 END AS free_e10
    FROM credit_grants
) g ON g.owner_id = a.owner_id
WHERE a.owner_id = :owner_id::text
GROUP BY a.owner_id, a.debt_e10;

-- name: ensure_partitions
-- Makes the monthly partitions up to so many months ahead.
-- args: ahead int
SELECT ensure_partitions(:ahead::int);
