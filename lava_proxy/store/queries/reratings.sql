-- name: without_a_price
-- Requests that were booked without any price, or at an assumed one, and were not re-rated yet:
-- behind a place, oldest first. Where only a part had no price the rest was priced by more than the
-- row holds, so those stay.
-- args: after_at timestamptz, after_id text, most int
SELECT r.merchant_id, r.request_id, r.created_at, r.customer_id, r.meter_id, r.cycle, r.provider,
       r.provider_key_type, r.model, r.input_tokens, r.output_tokens, r.cache_read_tokens,
       r.cache_write_tokens, r.reasoning_tokens, r.input_characters, r.output_characters,
       r.input_ms, r.output_ms, r.units, r.rate_type, r.breakdown, r.cost_e10, r.charge_e10,
       r.price_version, r.flags
FROM requests r
WHERE r.flags && ARRAY['unpriced', 'price_assumed'] AND r.model IS NOT NULL
  AND r.status = 'completed'
  AND (r.price_version IS NULL OR 'price_assumed' = ANY(r.flags))
  AND (r.created_at, r.request_id) > (:after_at::timestamptz, :after_id::text)
  AND NOT EXISTS (SELECT FROM reratings x
                  WHERE x.merchant_id = r.merchant_id AND x.request_id = r.request_id)
ORDER BY r.created_at, r.request_id LIMIT :most::int;

-- name: units_before
-- Units that a tier scope had seen before a request.
-- args: merchant_id text, customer_id text, meter_id text, cycle text, before_at timestamptz,
--   before_id text
SELECT coalesce(sum(units), 0)::bigint FROM requests
WHERE merchant_id = :merchant_id::text AND meter_id = :meter_id::text AND cycle = :cycle::text
  AND customer_id IS NOT DISTINCT FROM :customer_id::text
  AND status <> 'error' AND NOT ('unbilled' = ANY(flags))
  AND (created_at, request_id) < (:before_at::timestamptz, :before_id::text);

-- name: insert_rerating
-- Notes that a request was re-rated; nothing comes back when it was already.
-- args: merchant_id text, request_id text, created_at timestamptz, transaction_id text,
--   price_version text, cost bigint, charge bigint, cost_change bigint, charge_change bigint,
--   now timestamptz
INSERT INTO reratings (merchant_id, request_id, created_at, transaction_id, price_version, cost_e10,
                       charge_e10, cost_change_e10, charge_change_e10, rerated_at)
VALUES (:merchant_id::text, :request_id::text, :created_at::timestamptz, :transaction_id::text,
        :price_version::text, :cost::bigint, :charge::bigint, :cost_change::bigint,
        :charge_change::bigint, :now::timestamptz)
ON CONFLICT DO NOTHING RETURNING request_id;

-- name: change_quarter
-- Brings the quarter of an hour that a re-rated request belongs to up to date, and what the wallet
-- has paid for the provider's managed key.
-- args: merchant_id text, created_at timestamptz, customer_id text, meter_id text,
--   cost_change bigint, charge_change bigint, managed_change bigint
WITH walleted AS (
    INSERT INTO wallet_costs AS w (merchant_id, slot, cost_e10)
    SELECT :merchant_id::text, pg_backend_pid() % 16, :managed_change::bigint
    WHERE :managed_change::bigint <> 0
    ON CONFLICT (merchant_id, slot) DO UPDATE SET cost_e10 = w.cost_e10 + excluded.cost_e10
)
UPDATE usage_rollups
SET cost_e10 = cost_e10 + :cost_change::bigint,
    charge_e10 = charge_e10 + :charge_change::bigint,
    managed_cost_e10 = managed_cost_e10 + :managed_change::bigint
WHERE merchant_id = :merchant_id::text
  AND bucket = date_bin('15 minutes', :created_at::timestamptz, 'epoch')
  AND customer_id = coalesce(:customer_id::text, '') AND meter_id = coalesce(:meter_id::text, '');
