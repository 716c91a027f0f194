-- Plans, subscriptions and their cycles, and the payments behind them.
--
-- A cycle is a row, unique by (subscription, seq): whoever renews late, or twice, inserts nothing
-- new and grants nothing new. A payment is a row that exists before the payment provider is asked;
-- its id is the idempotency key there, and what it pays for is done in the transaction that moves
-- it to 'succeeded', once.

CREATE TABLE plans (
    plan_id                  text PRIMARY KEY,
    merchant_id              text NOT NULL REFERENCES merchants,
    name                     text NOT NULL,
    period_amount_e10        bigint NOT NULL CHECK (period_amount_e10 >= 0),
    included_credit_e10      bigint NOT NULL CHECK (included_credit_e10 >= 0),
    billing_interval         text NOT NULL
        CHECK (billing_interval IN ('day', 'week', 'month', 'year')),
    rollover_type            text NOT NULL CHECK (rollover_type IN ('full', 'none')),
    bundle_rollover_type     text NOT NULL CHECK (bundle_rollover_type IN ('full', 'none')),
    default_top_up_bundle_id text,
    created_at               timestamptz NOT NULL DEFAULT now(),
    deleted_at               timestamptz
);
CREATE INDEX plans_newest ON plans (merchant_id, created_at DESC, plan_id DESC);

CREATE TABLE plan_meters (
    plan_id  text NOT NULL REFERENCES plans,
    meter_id text NOT NULL REFERENCES meters,
    PRIMARY KEY (plan_id, meter_id)
);
CREATE INDEX plan_meters_by_meter ON plan_meters (meter_id);

CREATE TABLE credit_bundles (
    credit_bundle_id text PRIMARY KEY,
    plan_id          text NOT NULL REFERENCES plans,
    merchant_id      text NOT NULL REFERENCES merchants,
    name             text NOT NULL,
    cost_e10         bigint NOT NULL CHECK (cost_e10 >= 0),
    credit_e10       bigint NOT NULL CHECK (credit_e10 > 0),
    created_at       timestamptz NOT NULL DEFAULT now(),
    deleted_at       timestamptz
);
CREATE INDEX credit_bundles_newest
    ON credit_bundles (merchant_id, created_at DESC, credit_bundle_id DESC);
CREATE INDEX credit_bundles_by_plan ON credit_bundles (plan_id, created_at);

CREATE TABLE subscriptions (
    subscription_id text PRIMARY KEY,
    merchant_id     text NOT NULL REFERENCES merchants,
    customer_id     text NOT NULL REFERENCES customers,
    plan_id         text NOT NULL REFERENCES plans,
    status          text NOT NULL CHECK (status IN ('active', 'cancelled')),
    -- NULL: no auto top-up. Starts as the plan's default.
    top_up_bundle_id text,
    started_at      timestamptz NOT NULL,
    -- What month ends are clamped from: the day is kept, 31 Jan -> 28 Feb -> 31 Mar.
    anchor_at       timestamptz NOT NULL,
    cycle_seq       int NOT NULL CHECK (cycle_seq >= 1),
    cycle_start_at  timestamptz NOT NULL,
    cycle_end_at    timestamptz NOT NULL,
    pending_type    text CHECK (pending_type IN ('cancellation', 'downgrade')),
    pending_plan_id text REFERENCES plans,
    -- Since when a renewal has not been paid for; the cycle that it is for grants nothing yet.
    past_due_since  timestamptz,
    cancelled_at    timestamptz
);
CREATE UNIQUE INDEX subscriptions_active ON subscriptions (customer_id) WHERE status = 'active';
CREATE INDEX subscriptions_newest
    ON subscriptions (merchant_id, started_at DESC, subscription_id DESC);
CREATE INDEX subscriptions_by_customer
    ON subscriptions (customer_id, started_at DESC, subscription_id DESC);
CREATE INDEX subscriptions_by_plan ON subscriptions (plan_id) WHERE status = 'active';
CREATE INDEX subscriptions_due ON subscriptions (cycle_end_at) WHERE status = 'active';

CREATE TABLE cycles (
    subscription_id text NOT NULL REFERENCES subscriptions,
    seq             int NOT NULL,
    plan_id         text NOT NULL REFERENCES plans,
    starts_at       timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    grant_id        text REFERENCES credit_grants,
    payment_id      text,
    PRIMARY KEY (subscription_id, seq)
);

-- Payments ---------------------------------------------------------------------------------------

-- Who a customer (or, for its wallet, a merchant) is at a payment provider. owner_id is the
-- customer_id or the merchant_id.
CREATE TABLE payers (
    owner_id    text NOT NULL,
    provider    text NOT NULL,
    payer_ref   text NOT NULL,
    merchant_id text NOT NULL REFERENCES merchants,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, provider)
);
CREATE UNIQUE INDEX payers_by_ref ON payers (provider, payer_ref);

CREATE TABLE payments (
    payment_id       text PRIMARY KEY,
    merchant_id      text NOT NULL REFERENCES merchants,
    customer_id      text REFERENCES customers, -- NULL: the merchant's wallet
    purpose          text NOT NULL
        CHECK (purpose IN ('subscription', 'renewal', 'bundle', 'top_up', 'wallet')),
    amount_e10       bigint NOT NULL CHECK (amount_e10 >= 0),
    status           text NOT NULL
        CHECK (status IN ('pending', 'requires_action', 'succeeded', 'failed', 'cancelled')),
    provider         text NOT NULL,
    -- The provider's own id of it (a payment intent), once there is one.
    provider_ref     text,
    plan_id          text REFERENCES plans,
    subscription_id  text REFERENCES subscriptions,
    -- renewal: the cycle that it pays for; top_up: its number within the subscription.
    seq              int,
    credit_bundle_id text REFERENCES credit_bundles,
    checkout_session_id text,
    grant_id         text REFERENCES credit_grants,
    refunded_e10     bigint NOT NULL DEFAULT 0 CHECK (refunded_e10 >= 0),
    disputed_at      timestamptz,
    attempts         int NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz,
    error_code       text,
    error_message    text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    settled_at       timestamptz
);
CREATE UNIQUE INDEX payments_by_ref ON payments (provider, provider_ref);
CREATE UNIQUE INDEX payments_once ON payments (subscription_id, purpose, seq)
    WHERE purpose IN ('renewal', 'top_up');
CREATE INDEX payments_newest ON payments (merchant_id, created_at DESC, payment_id DESC);
CREATE INDEX payments_due ON payments (next_attempt_at) WHERE status = 'pending';

CREATE TABLE checkout_sessions (
    checkout_session_id text PRIMARY KEY,
    merchant_id         text NOT NULL REFERENCES merchants,
    secret_hash         bytea NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    test                boolean NOT NULL,
    checkout_mode       text NOT NULL CHECK (checkout_mode IN ('subscription', 'credit_bundle')),
    origin_url          text NOT NULL,
    customer_id         text REFERENCES customers,
    plan_id             text REFERENCES plans,
    credit_bundle_id    text REFERENCES credit_bundles,
    payment_id          text REFERENCES payments,
    created_at          timestamptz NOT NULL DEFAULT now(),
    expires_at          timestamptz NOT NULL,
    completed_at        timestamptz
);
CREATE INDEX checkout_sessions_by_merchant ON checkout_sessions (merchant_id, created_at DESC);

-- What a payment provider told us, by its own event id: a message that comes twice works once.
CREATE TABLE payment_events (
    provider    text NOT NULL,
    event_id    text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, event_id)
);

-- Change feed: a plan or a subscription is part of what workers know of a customer.
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON plans
    FOR EACH ROW EXECUTE FUNCTION note_change('plan_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON plan_meters
    FOR EACH ROW EXECUTE FUNCTION note_change('plan_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION note_change('customer_id');
