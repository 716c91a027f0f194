-- name: open_bucket
-- Makes a full bucket; harmless when it is there.
-- args: owner_id text, tokens bigint
INSERT INTO rate_buckets (owner_id, tokens_e6, refilled_at)
VALUES (:owner_id::text, :tokens::bigint, clock_timestamp())
ON CONFLICT DO NOTHING;

-- name: lock_bucket
-- A bucket, locked, and how long ago it was filled up, by the database's clock.
-- args: owner_id text
SELECT tokens_e6, (extract(epoch FROM clock_timestamp() - refilled_at) * 1000000)::bigint AS age_us
FROM rate_buckets WHERE owner_id = :owner_id::text FOR NO KEY UPDATE;

-- name: lapse_permits
-- Permits whose time is over count as used when it ended: their worker may have done so.
-- args: owner_id text
DELETE FROM rate_permits
WHERE owner_id = :owner_id::text AND expires_at < clock_timestamp()
RETURNING permits,
    (extract(epoch FROM clock_timestamp() - expires_at) * 1000000)::bigint AS age_us;

-- name: permits_out
-- Permits in workers' hands: this holder's, and the others'.
-- args: owner_id text, holder_id text
SELECT coalesce(sum(permits) FILTER (WHERE holder_id = :holder_id::text), 0)::bigint AS ours,
       coalesce(sum(permits) FILTER (WHERE holder_id <> :holder_id::text), 0)::bigint AS others
FROM rate_permits WHERE owner_id = :owner_id::text;

-- name: forget_permits
-- A holder has none any more.
-- args: owner_id text, holder_id text
DELETE FROM rate_permits WHERE owner_id = :owner_id::text AND holder_id = :holder_id::text;

-- name: keep_permits
-- What a holder has now, and for how long.
-- args: owner_id text, holder_id text, permits int, lease_s float8
INSERT INTO rate_permits (owner_id, holder_id, permits, expires_at)
VALUES (:owner_id::text, :holder_id::text, :permits::int,
        clock_timestamp() + make_interval(secs => :lease_s::float8))
ON CONFLICT (owner_id, holder_id) DO UPDATE
SET permits = excluded.permits, expires_at = excluded.expires_at;

-- name: keep_bucket
-- Writes a bucket back as it was so long after the last time.
-- args: owner_id text, tokens bigint, after_us bigint
UPDATE rate_buckets
SET tokens_e6 = :tokens::bigint,
    refilled_at = refilled_at + :after_us::bigint * interval '1 microsecond'
WHERE owner_id = :owner_id::text;
