-- name: find_request
-- A merchant's request; its time in request_ids names the partition.
-- args: merchant_id text, request_id text
SELECT r.request_id, r.created_at, r.customer_id, r.meter_id, r.provider, r.provider_key_type,
       r.model, r.endpoint, r.response_id, r.status, r.outcome, r.usage_source, r.stream,
       r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens,
       r.reasoning_tokens, r.input_characters, r.output_characters, r.input_ms, r.output_ms,
       r.input_cost_e10, r.output_cost_e10, r.cost_e10, r.charge_e10, r.rate_type, r.tier_type,
       r.breakdown, r.metadata, r.price_version, r.duration_ms, r.first_byte_ms, r.completed_at,
       i.content_hash,
       x.price_version AS rerated_version, x.cost_e10 AS rerated_cost_e10,
       x.charge_e10 AS rerated_charge_e10, x.input_cost_e10 AS rerated_input_cost_e10,
       x.breakdown AS rerated_breakdown, x.rerated_at
FROM request_ids i
JOIN requests r ON r.merchant_id = i.merchant_id AND r.created_at = i.created_at
               AND r.request_id = i.request_id
LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id
WHERE i.merchant_id = :merchant_id::text AND i.request_id = :request_id::text;

-- name: list_requests
-- A merchant's requests behind a place in the list, newest first; a NULL filter lets all pass.
-- args: merchant_id text, meter_id text, metadata jsonb, before_at timestamptz, before_id text,
--   most int
SELECT r.request_id, r.created_at, r.customer_id, r.meter_id, r.provider, r.provider_key_type,
       r.model, r.endpoint, r.response_id, r.status, r.outcome, r.usage_source, r.stream,
       r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens,
       r.reasoning_tokens, r.input_characters, r.output_characters, r.input_ms, r.output_ms,
       r.input_cost_e10, r.output_cost_e10, r.cost_e10, r.charge_e10, r.rate_type, r.tier_type,
       r.breakdown, r.metadata, r.price_version, r.duration_ms, r.first_byte_ms, r.completed_at,
       NULL::bytea AS content_hash,
       x.price_version AS rerated_version, x.cost_e10 AS rerated_cost_e10,
       x.charge_e10 AS rerated_charge_e10, x.input_cost_e10 AS rerated_input_cost_e10,
       x.breakdown AS rerated_breakdown, x.rerated_at
FROM requests r
LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id
WHERE r.merchant_id = :merchant_id::text
  AND (r.created_at, r.request_id) < (:before_at::timestamptz, :before_id::text)
  AND (:meter_id::text IS NULL OR r.meter_id = :meter_id::text)
  AND (:metadata::jsonb IS NULL OR r.metadata @> :metadata::jsonb)
ORDER BY r.created_at DESC, r.request_id DESC LIMIT :most::int;

-- name: list_requests_of_customer
-- The same for one customer.
-- args: merchant_id text, customer_id text, meter_id text, metadata jsonb, before_at timestamptz,
--   before_id text, most int
SELECT r.request_id, r.created_at, r.customer_id, r.meter_id, r.provider, r.provider_key_type,
       r.model, r.endpoint, r.response_id, r.status, r.outcome, r.usage_source, r.stream,
       r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens,
       r.reasoning_tokens, r.input_characters, r.output_characters, r.input_ms, r.output_ms,
       r.input_cost_e10, r.output_cost_e10, r.cost_e10, r.charge_e10, r.rate_type, r.tier_type,
       r.breakdown, r.metadata, r.price_version, r.duration_ms, r.first_byte_ms, r.completed_at,
       NULL::bytea AS content_hash,
       x.price_version AS rerated_version, x.cost_e10 AS rerated_cost_e10,
       x.charge_e10 AS rerated_charge_e10, x.input_cost_e10 AS rerated_input_cost_e10,
       x.breakdown AS rerated_breakdown, x.rerated_at
FROM requests r
LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id
WHERE r.merchant_id = :merchant_id::text AND r.customer_id = :customer_id::text
  AND (r.created_at, r.request_id) < (:before_at::timestamptz, :before_id::text)
  AND (:meter_id::text IS NULL OR r.meter_id = :meter_id::text)
  AND (:metadata::jsonb IS NULL OR r.metadata @> :metadata::jsonb)
ORDER BY r.created_at DESC, r.request_id DESC LIMIT :most::int;
