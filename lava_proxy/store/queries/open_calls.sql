-- name: be_seen
-- This process is alive; whether it was not known before.
-- args: holder_id text
INSERT INTO open_call_holders AS h (holder_id, seen_at)
VALUES (:holder_id::text, clock_timestamp())
ON CONFLICT (holder_id) DO UPDATE SET seen_at = excluded.seen_at
RETURNING h.xmax = 0;

-- name: tell_calls
-- Writes down calls of a process.
-- args: holder_id text, merchant_ids text[], request_ids text[], facts bytea[]
INSERT INTO open_calls (merchant_id, request_id, holder_id, facts)
SELECT m, r, :holder_id::text, f
FROM unnest(:merchant_ids::text[], :request_ids::text[], :facts::bytea[]) AS told (m, r, f)
ON CONFLICT DO NOTHING;

-- name: untell_calls
-- Removes calls of a process that are over.
-- args: holder_id text, request_ids text[]
DELETE FROM open_calls
WHERE holder_id = :holder_id::text AND request_id = ANY (:request_ids::text[]);

-- name: find_open_call
-- A merchant's call that runs at a process that was seen lately.
-- args: merchant_id text, request_id text, gone_s double precision
SELECT c.holder_id, c.facts
FROM open_calls c
JOIN open_call_holders h USING (holder_id)
WHERE c.merchant_id = :merchant_id::text AND c.request_id = :request_id::text
  AND h.seen_at > clock_timestamp() - make_interval(secs => :gone_s::double precision);

-- name: forget_holder
-- Removes a process, and what it told.
-- args: holder_id text
DELETE FROM open_call_holders WHERE holder_id = :holder_id::text;

-- name: forget_gone
-- Removes processes that were not seen for long, and what they told.
-- args: gone_s double precision
DELETE FROM open_call_holders
WHERE seen_at < clock_timestamp() - make_interval(secs => :gone_s::double precision);
