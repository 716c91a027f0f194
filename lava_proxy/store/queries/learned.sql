-- name: save_factors
-- Keeps what this worker learned. Where others learned too, the mean of both is nearer the truth.
-- args: providers text[], models text[], ratios bigint[]
INSERT INTO learned_factors AS f (provider, model, ratio_e6)
SELECT * FROM unnest(:providers::text[], :models::text[], :ratios::bigint[])
ON CONFLICT (provider, model) DO UPDATE
SET ratio_e6 = (f.ratio_e6 + excluded.ratio_e6) / 2, updated_at = clock_timestamp();

-- name: newest_factors
-- The factors that were learned last.
-- args: most int
SELECT provider, model, ratio_e6 FROM learned_factors ORDER BY updated_at DESC LIMIT :most::int;

-- name: forget_factors
-- Forgets models that nobody called for long.
-- args: days int
DELETE FROM learned_factors
WHERE updated_at < clock_timestamp() - make_interval(days => :days::int);
