-- name: alone
-- Whether no other process re-rates by itself now; so it is until this transaction ends.
SELECT pg_try_advisory_xact_lock(hashtext('lava rerate'));

-- name: units_before
-- Units that a tier scope had seen before a request, those of months that went included.
-- args: merchant_id text, customer_id text, meter_id text, cycle text, before_at timestamptz,
--   before_id text
SELECT (coalesce((
            SELECT sum(units) FROM requests
            WHERE merchant_id = :merchant_id::text AND meter_id = :meter_id::text
              AND cycle = :cycle::text AND customer_id IS NOT DISTINCT FROM :customer_id::text
              AND status <> 'error' AND NOT ('unbilled' = ANY(flags))
              AND (created_at, request_id) < (:before_at::timestamptz, :before_id::text)), 0)
        + coalesce((
            SELECT sum(units) FROM retired_units
            WHERE owner_id = coalesce(:customer_id::text, :merchant_id::text)
              AND meter_id = :meter_id::text AND cycle = :cycle::text), 0))::bigint;

-- name: insert_rerating
-- Notes that a request was re-rated; nothing comes back when it was already.
-- args: merchant_id text, request_id text, created_at timestamptz, transaction_id text,
--   price_version text, cost bigint, charge bigint, cost_change bigint, charge_change bigint,
--   input_cost bigint, breakdown jsonb, now timestamptz
INSERT INTO reratings (merchant_id, request_id, created_at, transaction_id, price_version, cost_e10,
                       charge_e10, cost_change_e10, charge_change_e10, input_cost_e10, breakdown,
                       rerated_at)
VALUES (:merchant_id::text, :request_id::text, :created_at::timestamptz, :transaction_id::text,
        :price_version::text, :cost::bigint, :charge::bigint, :cost_change::bigint,
        :charge_change::bigint, :input_cost::bigint, :breakdown::jsonb, :now::timestamptz)
ON CONFLICT DO NOTHING RETURNING request_id;

-- name: open_cycle
-- The credit of the cycle that a request was booked in, while that cycle runs, and how much of it is
-- spent. The account is locked.
-- args: customer_id text, subscription_id text, seq int, now timestamptz
SELECT g.grant_id, g.spent_e10
FROM subscriptions s
JOIN cycles c ON c.subscription_id = s.subscription_id AND c.seq = s.cycle_seq
JOIN credit_grants g ON g.grant_id = c.grant_id
WHERE s.subscription_id = :subscription_id::text AND s.customer_id = :customer_id::text
  AND s.status = 'active' AND s.cycle_seq = :seq::int AND c.ends_at > :now::timestamptz
  AND (g.expires_at IS NULL OR g.expires_at > :now::timestamptz);

-- name: unspend
-- Gives back what was spent of one grant.
-- args: grant_id text, amount bigint
UPDATE credit_grants
SET spent_e10 = spent_e10 - :amount::bigint, available_e10 = available_e10 + :amount::bigint
WHERE grant_id = :grant_id::text;

-- name: unspend_limits
-- Less was used of limits than was booked. What was beyond a limit leaves when it is leased next.
-- args: owner_ids text[], amount bigint
UPDATE credit_grants
SET spent_e10 = spent_e10 - least(spent_e10, :amount::bigint),
    available_e10 = available_e10 + least(spent_e10, :amount::bigint)
WHERE grant_id = ANY(:owner_ids::text[]) AND kind = 'limit';

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
