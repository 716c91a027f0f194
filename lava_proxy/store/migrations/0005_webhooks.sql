-- Webhooks out: who is told, what happened (the outbox), and what became of each delivery.
--
-- An event is one row, written in the transaction of the change itself. A worker then reads the
-- customer, freezes the body and makes one delivery per webhook that wants the event.

CREATE TABLE webhooks (
    webhook_id    text PRIMARY KEY,
    merchant_id   text NOT NULL REFERENCES merchants,
    -- 1, 2, 3: two creations at once cannot both have the last one.
    slot          smallint NOT NULL CHECK (slot >= 1),
    name          text NOT NULL,
    url           text NOT NULL,
    secret_sealed bytea NOT NULL,
    events        text[] NOT NULL,
    -- Failures since the last success, and until when the endpoint is left alone.
    failures      int NOT NULL DEFAULT 0 CHECK (failures >= 0),
    quiet_until   timestamptz NOT NULL DEFAULT '-infinity',
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (merchant_id, slot)
);
CREATE INDEX webhooks_newest ON webhooks (merchant_id, created_at DESC, webhook_id DESC);

CREATE TABLE webhook_events (
    event_id      text PRIMARY KEY,
    merchant_id   text NOT NULL,
    event         text NOT NULL,
    customer_id   text NOT NULL,
    request_id    text,
    created_at    timestamptz NOT NULL,
    -- NULL until the body is frozen and the deliveries are made.
    dispatched_at timestamptz,
    body          bytea
);
CREATE INDEX webhook_events_waiting ON webhook_events (created_at, event_id)
    WHERE dispatched_at IS NULL;
CREATE INDEX webhook_events_by_age ON webhook_events (created_at);
-- However often a balance changes before somebody looks, it is one event.
CREATE UNIQUE INDEX webhook_events_one_balance ON webhook_events (customer_id)
    WHERE dispatched_at IS NULL AND event = 'customer.wallet.balance.updated';

CREATE TABLE webhook_deliveries (
    event_id    text NOT NULL REFERENCES webhook_events ON DELETE CASCADE,
    webhook_id  text NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'dead')),
    tries       int NOT NULL DEFAULT 0 CHECK (tries >= 0),
    created_at  timestamptz NOT NULL,
    next_at     timestamptz NOT NULL,
    -- Set by who took it; one that is over was taken by a process that died.
    claimed_until timestamptz NOT NULL DEFAULT '-infinity',
    last_status int,
    last_error  text,
    ended_at    timestamptz,
    PRIMARY KEY (event_id, webhook_id)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, next_at)
    WHERE status = 'pending';
CREATE INDEX webhook_deliveries_newest
    ON webhook_deliveries (created_at DESC, event_id DESC, webhook_id DESC);

-- What a customer's webhooks were last told about its credit.
CREATE TABLE webhook_levels (
    customer_id text PRIMARY KEY,
    level       text NOT NULL CHECK (level IN ('fine', 'low', 'exhausted'))
);
