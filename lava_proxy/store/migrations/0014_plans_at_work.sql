-- Whose next cycle is not paid for: they are looked at every few seconds.
CREATE INDEX subscriptions_past_due ON subscriptions (past_due_since)
    WHERE status = 'active' AND past_due_since IS NOT NULL;
