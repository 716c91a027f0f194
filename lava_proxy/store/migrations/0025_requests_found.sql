-- Requests by meter and by what their metadata says, and one place that says how they are shown.

CREATE INDEX requests_by_meter
    ON requests (merchant_id, meter_id, created_at DESC, request_id DESC);
CREATE INDEX requests_by_metadata
    ON requests USING gin (metadata jsonb_path_ops) WHERE metadata IS NOT NULL;

CREATE VIEW shown_requests AS
SELECT r.merchant_id, r.request_id, r.created_at, r.customer_id, r.meter_id, r.provider,
       r.provider_key_type, r.model, r.endpoint, r.response_id, r.status, r.outcome,
       r.usage_source, r.stream, r.input_tokens, r.output_tokens, r.cache_read_tokens,
       r.cache_write_tokens, r.reasoning_tokens, r.input_characters, r.output_characters,
       r.input_ms, r.output_ms, r.input_cost_e10, r.output_cost_e10, r.cost_e10, r.charge_e10,
       r.rate_type, r.tier_type, r.breakdown, r.metadata, r.price_version, r.duration_ms,
       r.first_byte_ms, r.completed_at,
       x.price_version AS rerated_version, x.cost_e10 AS rerated_cost_e10,
       x.charge_e10 AS rerated_charge_e10, x.input_cost_e10 AS rerated_input_cost_e10,
       x.breakdown AS rerated_breakdown, x.rerated_at
FROM requests r
LEFT JOIN reratings x ON x.merchant_id = r.merchant_id AND x.request_id = r.request_id;
