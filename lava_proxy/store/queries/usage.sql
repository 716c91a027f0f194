-- name: usage_of_days
-- Usage by day: whole quarters of an hour from the roll-ups, the loose ends of the range from the
-- rows. `origin` is a midnight of the caller's time zone; a NULL filter lets all pass.
-- args: merchant_id text, customer_id text, meter_id text, since timestamptz, upto timestamptz,
--   whole_since timestamptz, whole_upto timestamptz, origin timestamptz
SELECT date_bin('1 day', at, :origin::timestamptz) AS day, sum(requests)::bigint AS requests,
       sum(tokens)::bigint AS tokens, sum(cost_e10)::bigint AS cost_e10,
       sum(charge_e10)::bigint AS charge_e10
FROM (
    SELECT bucket AS at, requests, input_tokens + output_tokens AS tokens, cost_e10, charge_e10
    FROM usage_rollups
    WHERE merchant_id = :merchant_id::text
      AND bucket >= :whole_since::timestamptz AND bucket < :whole_upto::timestamptz
      AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
      AND (:meter_id::text IS NULL OR meter_id = :meter_id::text)
    UNION ALL
    SELECT created_at, 1, input_tokens + output_tokens, cost_e10, charge_e10
    FROM requests
    WHERE merchant_id = :merchant_id::text
      AND (created_at >= :since::timestamptz AND created_at < :whole_since::timestamptz
           OR created_at >= :whole_upto::timestamptz AND created_at < :upto::timestamptz)
      AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
      AND (:meter_id::text IS NULL OR meter_id = :meter_id::text)
) AS used
GROUP BY day;

-- name: usage_of_rows
-- Usage by day from the rows alone: only they have metadata.
-- args: merchant_id text, customer_id text, meter_id text, metadata jsonb, since timestamptz,
--   upto timestamptz, origin timestamptz
SELECT date_bin('1 day', created_at, :origin::timestamptz) AS day, count(*) AS requests,
       sum(input_tokens + output_tokens)::bigint AS tokens, sum(cost_e10)::bigint AS cost_e10,
       sum(charge_e10)::bigint AS charge_e10
FROM requests
WHERE merchant_id = :merchant_id::text
  AND created_at >= :since::timestamptz AND created_at < :upto::timestamptz
  AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
  AND (:meter_id::text IS NULL OR meter_id = :meter_id::text)
  AND metadata @> :metadata::jsonb
GROUP BY day;
