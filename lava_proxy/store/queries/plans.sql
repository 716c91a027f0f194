-- name: insert_plan
-- Makes a plan.
-- args: plan_id text, merchant_id text, name text, period_amount bigint, included bigint,
--   billing_interval text, rollover text, bundle_rollover text, default_bundle_id text,
--   now timestamptz
INSERT INTO plans (plan_id, merchant_id, name, period_amount_e10, included_credit_e10,
                   billing_interval, rollover_type, bundle_rollover_type,
                   default_top_up_bundle_id, created_at)
VALUES (:plan_id::text, :merchant_id::text, :name::text, :period_amount::bigint, :included::bigint,
        :billing_interval::text, :rollover::text, :bundle_rollover::text,
        :default_bundle_id::text, :now::timestamptz);

-- name: insert_bundles
-- Adds bundles to a plan, each a microsecond younger than the one before: they stay in order.
-- args: plan_id text, merchant_id text, ids text[], names text[], costs bigint[],
--   credits bigint[], now timestamptz
INSERT INTO credit_bundles (credit_bundle_id, plan_id, merchant_id, name, cost_e10, credit_e10,
                            created_at)
SELECT b.id, :plan_id::text, :merchant_id::text, b.name, b.cost, b.credit,
       :now::timestamptz + b.place * interval '1 microsecond'
FROM unnest(:ids::text[], :names::text[], :costs::bigint[], :credits::bigint[])
    WITH ORDINALITY AS b(id, name, cost, credit, place);

-- name: lock_plan
-- A merchant's plan, to be changed.
-- args: plan_id text, merchant_id text
SELECT plan_id FROM plans
WHERE plan_id = :plan_id::text AND merchant_id = :merchant_id::text AND deleted_at IS NULL
FOR UPDATE;

-- name: update_plan
-- Changes what is not NULL; credit and rollover hold from each subscription's next cycle on.
-- args: plan_id text, name text, included bigint, rollover text, bundle_rollover text
UPDATE plans SET
    name = coalesce(:name::text, name),
    included_credit_e10 = coalesce(:included::bigint, included_credit_e10),
    rollover_type = coalesce(:rollover::text, rollover_type),
    bundle_rollover_type = coalesce(:bundle_rollover::text, bundle_rollover_type)
WHERE plan_id = :plan_id::text;

-- name: set_default_bundle
-- Sets the bundle that new subscriptions top up with; no row where it is not the plan's.
-- args: plan_id text, bundle_id text
UPDATE plans p SET default_top_up_bundle_id = :bundle_id::text
WHERE p.plan_id = :plan_id::text
  AND (:bundle_id::text IS NULL OR EXISTS (
      SELECT FROM credit_bundles b WHERE b.credit_bundle_id = :bundle_id::text
        AND b.plan_id = p.plan_id AND b.deleted_at IS NULL))
RETURNING p.plan_id;

-- name: update_bundle
-- Changes a bundle of a plan; no row where it is not the plan's.
-- args: plan_id text, credit_bundle_id text, name text, cost bigint, credit bigint
UPDATE credit_bundles SET
    name = coalesce(:name::text, name),
    cost_e10 = coalesce(:cost::bigint, cost_e10),
    credit_e10 = coalesce(:credit::bigint, credit_e10)
WHERE plan_id = :plan_id::text AND credit_bundle_id = :credit_bundle_id::text
  AND deleted_at IS NULL
RETURNING credit_bundle_id;

-- name: remove_bundle
-- Sells a bundle no more, by itself neither; no row where it is not the plan's.
-- args: plan_id text, credit_bundle_id text, now timestamptz
WITH gone AS (
    UPDATE credit_bundles SET deleted_at = :now::timestamptz
    WHERE plan_id = :plan_id::text AND credit_bundle_id = :credit_bundle_id::text
      AND deleted_at IS NULL
    RETURNING credit_bundle_id
), no_default AS (
    UPDATE plans SET default_top_up_bundle_id = NULL
    FROM gone WHERE plan_id = :plan_id::text
      AND default_top_up_bundle_id = gone.credit_bundle_id
)
SELECT credit_bundle_id FROM gone;

-- name: lock_meters
-- Ids of a merchant's meters by id or slug, which cannot be deleted until the transaction ends.
-- args: merchant_id text, meters text[]
SELECT meter_id, slug FROM meters
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (meter_id = ANY(:meters::text[]) OR slug = ANY(:meters::text[]))
ORDER BY meter_id FOR KEY SHARE;

-- name: unlink_meters
-- Takes all meters off a plan but these.
-- args: plan_id text, meter_ids text[]
DELETE FROM plan_meters WHERE plan_id = :plan_id::text AND meter_id <> ALL(:meter_ids::text[]);

-- name: link_meters
-- Puts meters on a plan.
-- args: plan_id text, meter_ids text[]
INSERT INTO plan_meters (plan_id, meter_id)
SELECT :plan_id::text, m FROM unnest(:meter_ids::text[]) m ON CONFLICT DO NOTHING;

-- name: plan_in_use
-- Whether a customer is on a plan, or will be.
-- args: plan_id text
SELECT EXISTS (SELECT FROM subscriptions WHERE plan_id = :plan_id::text AND status = 'active')
    OR EXISTS (SELECT FROM subscriptions WHERE pending_plan_id = :plan_id::text);

-- name: delete_plan
-- Ends a plan and what it sells.
-- args: plan_id text, now timestamptz
WITH bundles AS (
    UPDATE credit_bundles SET deleted_at = :now::timestamptz
    WHERE plan_id = :plan_id::text AND deleted_at IS NULL
)
UPDATE plans SET deleted_at = :now::timestamptz WHERE plan_id = :plan_id::text;

-- name: find_plan
-- A merchant's plan with its meters and bundles.
-- args: merchant_id text, plan_id text
SELECT p.plan_id, p.merchant_id, p.name, p.period_amount_e10, p.included_credit_e10,
       p.billing_interval, p.rollover_type, p.bundle_rollover_type, p.default_top_up_bundle_id,
       p.created_at,
       ARRAY(SELECT ROW(m.meter_id, m.name) FROM plan_meters pm JOIN meters m USING (meter_id)
             WHERE pm.plan_id = p.plan_id ORDER BY m.created_at, m.meter_id) AS meters,
       ARRAY(SELECT ROW(b.credit_bundle_id, b.plan_id, b.name, b.cost_e10, b.credit_e10,
                        b.created_at) FROM credit_bundles b
             WHERE b.plan_id = p.plan_id AND b.deleted_at IS NULL
             ORDER BY b.created_at, b.credit_bundle_id) AS bundles
FROM plans p
WHERE p.plan_id = :plan_id::text AND p.merchant_id = :merchant_id::text AND p.deleted_at IS NULL;

-- name: list_plans
-- A merchant's plans with their meters and bundles, behind a place in the list, newest first.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT p.plan_id, p.merchant_id, p.name, p.period_amount_e10, p.included_credit_e10,
       p.billing_interval, p.rollover_type, p.bundle_rollover_type, p.default_top_up_bundle_id,
       p.created_at,
       ARRAY(SELECT ROW(m.meter_id, m.name) FROM plan_meters pm JOIN meters m USING (meter_id)
             WHERE pm.plan_id = p.plan_id ORDER BY m.created_at, m.meter_id) AS meters,
       ARRAY(SELECT ROW(b.credit_bundle_id, b.plan_id, b.name, b.cost_e10, b.credit_e10,
                        b.created_at) FROM credit_bundles b
             WHERE b.plan_id = p.plan_id AND b.deleted_at IS NULL
             ORDER BY b.created_at, b.credit_bundle_id) AS bundles
FROM plans p
WHERE p.merchant_id = :merchant_id::text AND p.deleted_at IS NULL
  AND (p.created_at, p.plan_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY p.created_at DESC, p.plan_id DESC LIMIT :most::int;

-- name: find_bundle
-- A merchant's bundle.
-- args: merchant_id text, credit_bundle_id text
SELECT credit_bundle_id, plan_id, name, cost_e10, credit_e10, created_at FROM credit_bundles
WHERE merchant_id = :merchant_id::text AND credit_bundle_id = :credit_bundle_id::text
  AND deleted_at IS NULL;

-- name: list_bundles
-- A merchant's bundles, all or a plan's, behind a place in the list, newest first.
-- args: merchant_id text, plan_id text, before_at timestamptz, before_id text, most int
SELECT credit_bundle_id, plan_id, name, cost_e10, credit_e10, created_at FROM credit_bundles
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (:plan_id::text IS NULL OR plan_id = :plan_id::text)
  AND (created_at, credit_bundle_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, credit_bundle_id DESC LIMIT :most::int;

-- name: free_plan
-- The plan that a merchant's new customers are put on; deleted or not.
-- args: merchant_id text
SELECT free_plan_id FROM merchants WHERE merchant_id = :merchant_id::text;

-- name: lock_merchant
-- Only one makes the merchant's Free plan.
-- args: merchant_id text
SELECT merchant_id FROM merchants WHERE merchant_id = :merchant_id::text FOR NO KEY UPDATE;

-- name: set_free_plan
-- Names the merchant's Free plan.
-- args: merchant_id text, plan_id text
UPDATE merchants SET free_plan_id = :plan_id::text WHERE merchant_id = :merchant_id::text;
