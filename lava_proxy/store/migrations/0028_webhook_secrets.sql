-- Secrets of webhooks that were rotated: until they end, deliveries are signed with them too.

CREATE TABLE webhook_old_secrets (
    webhook_id    text NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    secret_sealed bytea NOT NULL,
    ends_at       timestamptz NOT NULL
);
CREATE INDEX webhook_old_secrets_of ON webhook_old_secrets (webhook_id, ends_at);
