-- name: wait
-- Notes requests that wait for a price, a JSON array of objects.
-- args: rows text
INSERT INTO unrated_requests (merchant_id, request_id, created_at, provider, model, asked, limits)
SELECT merchant_id, request_id, created_at, provider, left(model, 256), left(asked, 256), limits
FROM json_to_recordset(:rows::text::json)
    AS t(merchant_id text, request_id text, created_at timestamptz, provider text, model text,
         asked text, limits text[]);

-- name: waiting_models
-- Models for which requests wait, of all merchants or of one, behind a place: one look into the
-- index for each.
-- args: of_merchant text, merchant_id text, provider text, model text, asked text, most int
WITH RECURSIVE models AS (
    (SELECT u.merchant_id, u.provider, u.model, u.asked FROM unrated_requests u
     WHERE (u.merchant_id, u.provider, u.model, u.asked)
           > (:merchant_id::text, :provider::text, :model::text, :asked::text)
       AND (:of_merchant::text IS NULL OR u.merchant_id = :of_merchant::text)
     ORDER BY 1, 2, 3, 4 LIMIT 1)
    UNION ALL
    SELECT n.* FROM models m CROSS JOIN LATERAL (
        SELECT u.merchant_id, u.provider, u.model, u.asked FROM unrated_requests u
        WHERE (u.merchant_id, u.provider, u.model, u.asked)
              > (m.merchant_id, m.provider, m.model, m.asked)
          AND (:of_merchant::text IS NULL OR u.merchant_id = :of_merchant::text)
        ORDER BY 1, 2, 3, 4 LIMIT 1) n
)
SELECT merchant_id, provider, model, asked FROM models LIMIT :most::int;

-- name: waiting
-- Requests for a model that wait and were not yet tried with what is known now, behind a place,
-- oldest first. Of those whose rows are not kept any more, only the id.
-- args: merchant_id text, provider text, model text, asked text, mark text,
--   after_at timestamptz, after_id text, most int
SELECT u.merchant_id, u.request_id, u.created_at, u.provider, u.model, u.asked, u.limits,
       r.request_id IS NULL AS gone, r.customer_id, r.meter_id, r.cycle, r.provider_key_type,
       r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens,
       r.reasoning_tokens, r.input_characters, r.output_characters, r.input_ms, r.output_ms,
       r.units, r.rate_type, r.breakdown, r.cost_e10, r.charge_e10, r.price_version, r.flags
FROM unrated_requests u
LEFT JOIN requests r ON r.merchant_id = u.merchant_id AND r.created_at = u.created_at
                    AND r.request_id = u.request_id
WHERE u.merchant_id = :merchant_id::text AND u.provider = :provider::text
  AND u.model = :model::text AND u.asked = :asked::text AND u.tried <> :mark::text
  AND (u.created_at, u.request_id) > (:after_at::timestamptz, :after_id::text)
ORDER BY u.created_at, u.request_id LIMIT :most::int;

-- name: tried_in_vain
-- Notes what could not price a request, so that it is not tried again.
-- args: merchant_id text, provider text, model text, asked text, created_at timestamptz,
--   request_id text, mark text
UPDATE unrated_requests SET tried = :mark::text
WHERE merchant_id = :merchant_id::text AND provider = :provider::text
  AND model = :model::text AND asked = :asked::text
  AND created_at = :created_at::timestamptz AND request_id = :request_id::text;

-- name: waits_no_more
-- A request was re-rated, or its row is not kept any more.
-- args: merchant_id text, provider text, model text, asked text, created_at timestamptz,
--   request_id text
DELETE FROM unrated_requests
WHERE merchant_id = :merchant_id::text AND provider = :provider::text
  AND model = :model::text AND asked = :asked::text
  AND created_at = :created_at::timestamptz AND request_id = :request_id::text;

-- name: anything
-- Whether any request waits.
SELECT EXISTS (SELECT FROM unrated_requests);
