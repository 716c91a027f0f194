-- name: fallback_chain
-- A merchant's fallback chain, as [[url, model], ...].
-- args: merchant_id text
SELECT fallback_chain FROM merchants WHERE merchant_id = :merchant_id::text;

-- name: set_fallback_chain
-- Replaces a merchant's fallback chain; NULL takes it away.
-- args: merchant_id text, fallback_chain jsonb
UPDATE merchants SET fallback_chain = :fallback_chain::jsonb
WHERE merchant_id = :merchant_id::text;
