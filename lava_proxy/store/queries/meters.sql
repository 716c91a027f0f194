-- name: insert_meter
-- Adds a meter; nothing comes back when the slug is taken.
-- args: meter_id text, merchant_id text, slug text, name text, rate_type text, tier_type text,
--   tiers jsonb, enforcement text, overdraft bigint, created_at timestamptz
INSERT INTO meters (meter_id, merchant_id, slug, name, rate_type, tier_type, tiers, enforcement,
                    overdraft_e10, created_at)
VALUES (:meter_id::text, :merchant_id::text, :slug::text, :name::text, :rate_type::text,
        :tier_type::text, :tiers::jsonb, :enforcement::text, :overdraft::bigint,
        :created_at::timestamptz)
ON CONFLICT (merchant_id, slug) WHERE deleted_at IS NULL DO NOTHING
RETURNING *;

-- name: meter
-- One meter by id or slug.
-- args: merchant_id text, meter text
SELECT * FROM meters
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (meter_id = :meter::text OR slug = :meter::text)
ORDER BY meter_id <> :meter::text LIMIT 1;

-- name: meters_page
-- A page of meters, newest first, from behind a cursor.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT * FROM meters
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (created_at, meter_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, meter_id DESC LIMIT :most::int;
