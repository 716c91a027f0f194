-- name: prices_in_force
-- All prices in force, the latest of each match last.
-- args: now timestamptz
SELECT override_id, merchant_id, provider, match, model, rates, effective_from, created_at
FROM price_overrides
WHERE removed_at IS NULL AND effective_from <= :now::timestamptz
ORDER BY effective_from, created_at, override_id;

-- name: next_price
-- When the next price comes into force.
-- args: now timestamptz
SELECT min(effective_from) FROM price_overrides
WHERE removed_at IS NULL AND effective_from > :now::timestamptz;

-- name: insert_price
-- Adds a price; one for the same model takes over when it comes into force. Nothing comes back when
-- its merchant has so many (in force, to come or taken over from).
-- args: price_id text, merchant_id text, provider text, match text, model text, rates jsonb,
--   effective_from timestamptz, created_at timestamptz, most int
INSERT INTO price_overrides
    (override_id, merchant_id, provider, match, model, rates, effective_from, created_at)
SELECT :price_id::text, :merchant_id::text, :provider::text, :match::text, :model::text,
       :rates::jsonb, :effective_from::timestamptz, :created_at::timestamptz
WHERE (SELECT count(*) FROM (
           SELECT FROM price_overrides
           WHERE merchant_id = :merchant_id::text AND removed_at IS NULL LIMIT :most::int
       ) AS counted) < :most::int
RETURNING override_id;

-- name: find_price
-- A price that a merchant sees: its own, or the operator's.
-- args: merchant_id text, price_id text
SELECT override_id, merchant_id, provider, match, model, rates, effective_from, created_at
FROM price_overrides
WHERE override_id = :price_id::text AND removed_at IS NULL
  AND (merchant_id = :merchant_id::text OR merchant_id IS NULL);

-- name: list_prices
-- The prices that a merchant sees, behind a place in the list, newest first: the newest of its own
-- and of the operator's, each in the order of the index (that of NULLs has to be said).
-- args: merchant_id text, provider text, before_at timestamptz, before_id text, most int
SELECT * FROM (
    (SELECT override_id, merchant_id, provider, match, model, rates, effective_from, created_at
     FROM price_overrides
     WHERE merchant_id = :merchant_id::text AND removed_at IS NULL
       AND (:provider::text IS NULL OR provider = :provider::text)
       AND (created_at, override_id) < (:before_at::timestamptz, :before_id::text)
     ORDER BY created_at DESC, override_id DESC LIMIT :most::int)
    UNION ALL
    (SELECT override_id, merchant_id, provider, match, model, rates, effective_from, created_at
     FROM price_overrides
     WHERE merchant_id IS NULL AND removed_at IS NULL
       AND (:provider::text IS NULL OR provider = :provider::text)
       AND (created_at, override_id) < (:before_at::timestamptz, :before_id::text)
     ORDER BY merchant_id, created_at DESC, override_id DESC LIMIT :most::int)
) AS either
ORDER BY created_at DESC, override_id DESC LIMIT :most::int;

-- name: all_prices
-- Every price that was not taken away, in force or to come, newest first.
-- args: most int
SELECT override_id, merchant_id, provider, match, model, rates, effective_from, created_at
FROM price_overrides WHERE removed_at IS NULL
ORDER BY created_at DESC, override_id DESC LIMIT :most::int;

-- name: remove_price
-- Takes a price away from now on; what was booked by it stays. A NULL merchant is the operator, who
-- may take away `anyones`.
-- args: merchant_id text, price_id text, anyones bool, now timestamptz
UPDATE price_overrides SET removed_at = :now::timestamptz
WHERE override_id = :price_id::text AND removed_at IS NULL
  AND (:anyones::bool OR merchant_id IS NOT DISTINCT FROM :merchant_id::text)
RETURNING override_id;
