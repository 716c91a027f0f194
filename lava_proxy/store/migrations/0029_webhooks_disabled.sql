-- Endpoints that do nothing but fail are disabled.

ALTER TABLE webhooks
    -- Since when every try failed; it begins anew with a success, or when a long time went by
    -- without a try.
    ADD COLUMN failing_since timestamptz,
    ADD COLUMN failed_at     timestamptz,
    -- Nothing is sent until somebody enables it again.
    ADD COLUMN disabled_at   timestamptz;
