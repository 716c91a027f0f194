-- name: find_request
-- A merchant's request; its time in request_ids names the partition.
-- args: merchant_id text, request_id text
SELECT r.*, i.content_hash
FROM request_ids i
JOIN shown_requests r ON r.merchant_id = i.merchant_id AND r.created_at = i.created_at
                     AND r.request_id = i.request_id
WHERE i.merchant_id = :merchant_id::text AND i.request_id = :request_id::text;

-- name: list_requests
-- A merchant's requests behind a place in the list, newest first.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT r.*, NULL::bytea AS content_hash FROM shown_requests r
WHERE r.merchant_id = :merchant_id::text
  AND (r.created_at, r.request_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY r.created_at DESC, r.request_id DESC LIMIT :most::int;

-- name: list_requests_of_meter
-- The same of one meter.
-- args: merchant_id text, meter_id text, before_at timestamptz, before_id text, most int
SELECT r.*, NULL::bytea AS content_hash FROM shown_requests r
WHERE r.merchant_id = :merchant_id::text AND r.meter_id = :meter_id::text
  AND (r.created_at, r.request_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY r.created_at DESC, r.request_id DESC LIMIT :most::int;

-- name: list_requests_of_customer
-- The same of one customer; a NULL filter lets all pass.
-- args: merchant_id text, customer_id text, meter_id text, metadata jsonb, before_at timestamptz,
--   before_id text, most int
SELECT r.*, NULL::bytea AS content_hash FROM shown_requests r
WHERE r.merchant_id = :merchant_id::text AND r.customer_id = :customer_id::text
  AND (r.created_at, r.request_id) < (:before_at::timestamptz, :before_id::text)
  AND (:meter_id::text IS NULL OR r.meter_id = :meter_id::text)
  AND (:metadata::jsonb IS NULL OR r.metadata @> :metadata::jsonb)
ORDER BY r.created_at DESC, r.request_id DESC LIMIT :most::int;

-- name: list_newest_requests_with
-- Those with some metadata among the next so many: what is usual is found here at once.
-- args: merchant_id text, meter_id text, metadata jsonb, before_at timestamptz, before_id text,
--   among int, most int
SELECT r.*, NULL::bytea AS content_hash
FROM (SELECT * FROM shown_requests r
      WHERE r.merchant_id = :merchant_id::text
        AND (r.created_at, r.request_id) < (:before_at::timestamptz, :before_id::text)
      ORDER BY r.created_at DESC, r.request_id DESC LIMIT :among::int) AS r
WHERE (:meter_id::text IS NULL OR r.meter_id = :meter_id::text)
  AND r.metadata @> :metadata::jsonb
ORDER BY r.created_at DESC, r.request_id DESC LIMIT :most::int;

-- name: list_requests_with
-- All of them, by the index of what metadata say: for what is rare.
-- args: merchant_id text, meter_id text, metadata jsonb, before_at timestamptz, before_id text,
--   most int
WITH found AS MATERIALIZED (
    SELECT r.merchant_id, r.created_at, r.request_id FROM requests r
    WHERE r.metadata @> :metadata::jsonb AND r.merchant_id = :merchant_id::text
      AND (:meter_id::text IS NULL OR r.meter_id = :meter_id::text)
      AND (r.created_at, r.request_id) < (:before_at::timestamptz, :before_id::text)
), page AS MATERIALIZED (
    SELECT * FROM found f ORDER BY f.created_at DESC, f.request_id DESC LIMIT :most::int
)
SELECT r.*, NULL::bytea AS content_hash
FROM page p
JOIN shown_requests r ON r.merchant_id = p.merchant_id AND r.created_at = p.created_at
                     AND r.request_id = p.request_id
ORDER BY r.created_at DESC, r.request_id DESC;
