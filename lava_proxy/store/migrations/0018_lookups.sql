-- Payments whose end nobody told us: they are looked up at the provider.

ALTER TABLE payments
    -- The provider's own page, where there is one: what was paid there is asked of it.
    ADD COLUMN page_ref text,
    -- When to look it up next; NULL: its end is known, or a worker asks for it anyway.
    ADD COLUMN look_at  timestamptz,
    ADD COLUMN looks    int NOT NULL DEFAULT 0;
CREATE INDEX payments_to_look_up ON payments (look_at) WHERE look_at IS NOT NULL;

-- What was begun before this and is still open: found at the provider without its page's id.
UPDATE payments SET look_at = now()
WHERE (status IN ('pending', 'requires_action') AND next_attempt_at IS NULL)
   OR (status = 'pending' AND purpose IN ('subscription', 'bundle', 'wallet'));
