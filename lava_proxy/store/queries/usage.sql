-- name: usage_of_days
-- Usage by day: whole quarters of an hour from the roll-ups, the loose ends of the range from the
-- rows, with what late prices changed. Of months whose rows are not kept any more there are only
-- quarters: one belongs to the range, and to the day, that it begins in. `origin` is a midnight of
-- the caller's time zone; a NULL filter lets all pass.
-- args: merchant_id text, customer_id text, meter_id text, since timestamptz, upto timestamptz,
--   whole_since timestamptz, whole_upto timestamptz, origin timestamptz
WITH kept AS (
    SELECT coalesce(max(upto), '-infinity') AS since FROM retired_parts
    WHERE part LIKE 'requests\_%'
)
SELECT date_bin('1 day', at, :origin::timestamptz) AS day, sum(requests)::bigint AS requests,
       sum(tokens)::bigint AS tokens, sum(cost_e10)::bigint AS cost_e10,
       sum(charge_e10)::bigint AS charge_e10
FROM (
    SELECT bucket AS at, requests, input_tokens + output_tokens AS tokens, cost_e10, charge_e10
    FROM usage_rollups
    WHERE merchant_id = :merchant_id::text
      AND bucket >= :since::timestamptz AND bucket < :upto::timestamptz
      AND (bucket < (SELECT since FROM kept)
           OR bucket >= :whole_since::timestamptz AND bucket < :whole_upto::timestamptz)
      AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
      AND (:meter_id::text IS NULL OR meter_id = :meter_id::text)
    UNION ALL
    SELECT r.created_at, 1, r.input_tokens + r.output_tokens,
           r.cost_e10 + coalesce(x.cost_change_e10, 0),
           r.charge_e10 + coalesce(x.charge_change_e10, 0)
    FROM requests r
    LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id
    WHERE r.merchant_id = :merchant_id::text
      AND (r.created_at >= :since::timestamptz AND r.created_at < :whole_since::timestamptz
           OR r.created_at >= :whole_upto::timestamptz AND r.created_at < :upto::timestamptz)
      AND r.created_at >= (SELECT since FROM kept)
      AND (:customer_id::text IS NULL OR r.customer_id = :customer_id::text)
      AND (:meter_id::text IS NULL OR r.meter_id = :meter_id::text)
) AS used
GROUP BY day;

-- name: usage_of_rows
-- Usage by day from the rows alone: only they have metadata.
-- args: merchant_id text, customer_id text, meter_id text, metadata jsonb, since timestamptz,
--   upto timestamptz, origin timestamptz
SELECT date_bin('1 day', r.created_at, :origin::timestamptz) AS day, count(*) AS requests,
       sum(r.input_tokens + r.output_tokens)::bigint AS tokens,
       sum(r.cost_e10 + coalesce(x.cost_change_e10, 0))::bigint AS cost_e10,
       sum(r.charge_e10 + coalesce(x.charge_change_e10, 0))::bigint AS charge_e10
FROM requests r
LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id
WHERE r.merchant_id = :merchant_id::text
  AND r.created_at >= :since::timestamptz AND r.created_at < :upto::timestamptz
  AND (:customer_id::text IS NULL OR r.customer_id = :customer_id::text)
  AND (:meter_id::text IS NULL OR r.meter_id = :meter_id::text)
  AND r.metadata @> :metadata::jsonb
GROUP BY day;

-- name: had_customer
-- Whether an id is, or was, a customer of a merchant.
-- args: merchant_id text, customer_id text
SELECT EXISTS (SELECT FROM customers WHERE merchant_id = :merchant_id::text
               AND customer_id = :customer_id::text);

-- name: had_meter
-- Whether an id is, or was, a meter of a merchant.
-- args: merchant_id text, meter_id text
SELECT EXISTS (SELECT FROM meters WHERE merchant_id = :merchant_id::text
               AND meter_id = :meter_id::text);
