-- name: create_meter
-- Makes a meter under the first of these slugs that is free; no row comes back when none is.
-- args: meter_id text, merchant_id text, slugs text[], name text, rate_type text, tier_type text,
--   tiers jsonb, enforcement text, overdraft bigint, unpriced text, created_at timestamptz
INSERT INTO meters (meter_id, merchant_id, slug, name, rate_type, tier_type, tiers, enforcement,
                    overdraft_e10, unpriced, created_at)
SELECT :meter_id::text, :merchant_id::text, wanted.slug, :name::text, :rate_type::text,
       :tier_type::text, :tiers::jsonb, :enforcement::text, :overdraft::bigint,
       :unpriced::text, :created_at::timestamptz
FROM unnest(:slugs::text[]) WITH ORDINALITY AS wanted(slug, place)
WHERE NOT EXISTS (SELECT FROM meters m WHERE m.merchant_id = :merchant_id::text
                  AND m.slug = wanted.slug AND m.deleted_at IS NULL)
ORDER BY wanted.place LIMIT 1
ON CONFLICT (merchant_id, slug) WHERE deleted_at IS NULL DO NOTHING
RETURNING meter_id, slug, name, rate_type, tier_type, tiers, enforcement, overdraft_e10,
          unpriced, created_at;

-- name: find_meter
-- A meter of a merchant by id or slug.
-- args: merchant_id text, meter text
SELECT meter_id, slug, name, rate_type, tier_type, tiers, enforcement, overdraft_e10,
       unpriced, created_at
FROM meters
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (meter_id = :meter::text OR slug = :meter::text)
ORDER BY meter_id <> :meter::text LIMIT 1;

-- name: list_meters
-- A merchant's meters behind a place in the list, newest first.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT meter_id, slug, name, rate_type, tier_type, tiers, enforcement, overdraft_e10,
       unpriced, created_at
FROM meters
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (created_at, meter_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, meter_id DESC LIMIT :most::int;

-- name: update_meter
-- Changes what is not NULL; running calls keep the tariff that they were admitted with.
-- args: merchant_id text, meter text, name text, tiers jsonb, enforcement text, overdraft bigint,
--   unpriced text
UPDATE meters SET
    name = coalesce(:name::text, name),
    tiers = coalesce(:tiers::jsonb, tiers),
    enforcement = coalesce(:enforcement::text, enforcement),
    overdraft_e10 = coalesce(:overdraft::bigint, overdraft_e10),
    unpriced = coalesce(:unpriced::text, unpriced)
WHERE meter_id = (
    SELECT meter_id FROM meters
    WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
      AND (meter_id = :meter::text OR slug = :meter::text)
    ORDER BY meter_id <> :meter::text LIMIT 1)
RETURNING meter_id, slug, name, rate_type, tier_type, tiers, enforcement, overdraft_e10,
          unpriced, created_at;

-- name: lock_meter
-- Finds a meter and keeps plans from linking it until the transaction ends.
-- args: merchant_id text, meter text
SELECT meter_id FROM meters
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (meter_id = :meter::text OR slug = :meter::text)
ORDER BY meter_id <> :meter::text LIMIT 1
FOR UPDATE;

-- name: plans_of_meter
-- Names of the plans that a meter is linked to.
-- args: meter_id text, most int
SELECT p.name FROM plan_meters m JOIN plans p USING (plan_id)
WHERE m.meter_id = :meter_id::text AND p.deleted_at IS NULL
ORDER BY p.created_at LIMIT :most::int;

-- name: delete_meter
-- Ends a meter; its slug is free again.
-- args: meter_id text, now timestamptz
UPDATE meters SET deleted_at = :now::timestamptz WHERE meter_id = :meter_id::text;
