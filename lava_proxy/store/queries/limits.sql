-- name: limits_behind
-- Accounts of one kind of limit behind a place, in order; the bounds let the primary key find them
-- under any collation.
-- args: after text, low text, high text, most int
SELECT owner_id FROM accounts
WHERE owner_id > :after::text AND owner_id >= :low::text AND owner_id < :high::text
ORDER BY owner_id LIMIT :most::int;

-- name: ended_tokens
-- Those of these forward tokens that ended before that.
-- args: token_ids text[], before timestamptz
SELECT forward_token_id FROM forward_tokens
WHERE forward_token_id = ANY(:token_ids::text[])
  AND least(revoked_at, expires_at) <= :before::timestamptz;

-- name: lock_limits
-- Locks those of these accounts that nobody is at.
-- args: owner_ids text[]
SELECT owner_id FROM accounts
WHERE owner_id = ANY(:owner_ids::text[]) ORDER BY owner_id FOR UPDATE SKIP LOCKED;

-- name: drop_limits
-- Drops limits whose cycle is over, with the leases that they had, unless one is open. No money is in
-- them: what was used is in the requests, and in the account of all time, or, of a forward token's
-- limit that has no cycle, with the token from now on.
-- args: owner_ids text[]
WITH idle AS (
    SELECT o.owner_id FROM unnest(:owner_ids::text[]) AS o(owner_id)
    WHERE NOT EXISTS (SELECT FROM leases l WHERE l.owner_id = o.owner_id AND l.closed_at IS NULL)
), kept AS (
    UPDATE forward_tokens t SET spent_e10 = t.spent_e10 + g.spent_e10
    FROM credit_grants g JOIN idle USING (owner_id)
    WHERE g.kind = 'limit' AND g.owner_id LIKE '%:total' AND g.spent_e10 > 0
      AND t.forward_token_id = split_part(g.owner_id, ':', 1)
), parts AS (
    DELETE FROM lease_parts p USING leases l, idle
    WHERE l.owner_id = idle.owner_id AND p.lease_id = l.lease_id
), gone AS (
    DELETE FROM leases l USING idle WHERE l.owner_id = idle.owner_id
), grants AS (
    DELETE FROM credit_grants g USING idle WHERE g.owner_id = idle.owner_id AND g.kind = 'limit'
)
DELETE FROM accounts a USING idle WHERE a.owner_id = idle.owner_id
RETURNING a.owner_id;

-- name: used_of_limits
-- What was booked on limits' accounts.
-- args: owner_ids text[]
SELECT owner_id, spent_e10 AS used FROM credit_grants
WHERE grant_id = ANY(:owner_ids::text[]) AND kind = 'limit';
