-- Budgets beside customer credit: limits per spend key, concurrency, the merchant's wallet, rates.
--
-- A budget is an account with one grant of kind 'limit' (its id is the account's), leased to workers
-- like credit. It is no money of a customer's: it has no ledger entries and never a debt. What is
-- spent beyond a limit raises the grant's amount with its spent part, so nothing is lost and the
-- parts still add up; the lease function takes the excess out of what comes back.

ALTER TABLE credit_grants DROP CONSTRAINT credit_grants_kind_check;
ALTER TABLE credit_grants ADD CONSTRAINT credit_grants_kind_check
    CHECK (kind IN ('cycle', 'bundle', 'operator', 'limit'));
ALTER TABLE credit_grants ADD CONSTRAINT credit_grants_one_limit
    CHECK (kind <> 'limit' OR grant_id = owner_id);

-- Rates: tokens + permits in workers' hands <= capacity, always.
CREATE TABLE rate_buckets (
    owner_id    text PRIMARY KEY,
    tokens_e6   bigint NOT NULL CHECK (tokens_e6 >= 0),
    refilled_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE rate_permits (
    owner_id   text NOT NULL REFERENCES rate_buckets ON DELETE CASCADE,
    holder_id  text NOT NULL,
    permits    int NOT NULL CHECK (permits > 0),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (owner_id, holder_id)
);
CREATE INDEX rate_permits_by_holder ON rate_permits (holder_id);

CREATE TABLE spend_keys (
    spend_key_id      text PRIMARY KEY,
    merchant_id       text NOT NULL REFERENCES merchants,
    wallet_id         text NOT NULL,
    name              text NOT NULL,
    key_hash          bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    key_preview       text NOT NULL,
    status            text NOT NULL CHECK (status IN ('active', 'paused')),
    request_shape     text NOT NULL CHECK (request_shape IN ('openai', 'anthropic')),
    allowed_models    text[],
    allowed_providers text[],
    spend_limit_e10   bigint CHECK (spend_limit_e10 > 0),
    spend_cycle       text CHECK (spend_cycle IN ('daily', 'weekly', 'monthly', 'total')),
    request_limit     bigint CHECK (request_limit > 0),
    request_cycle     text CHECK (request_cycle IN ('daily', 'weekly', 'monthly', 'total')),
    rate_rpm          int CHECK (rate_rpm > 0),
    rate_burst        int CHECK (rate_burst > 0),
    expires_at        timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    deleted_at        timestamptz,
    CHECK ((spend_limit_e10 IS NULL) = (spend_cycle IS NULL)),
    CHECK ((request_limit IS NULL) = (request_cycle IS NULL)),
    CHECK (rate_burst IS NULL OR rate_rpm IS NOT NULL)
);
CREATE INDEX spend_keys_newest ON spend_keys (merchant_id, created_at DESC, spend_key_id DESC);
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON spend_keys
    FOR EACH ROW EXECUTE FUNCTION note_change('spend_key_id');

-- Apart from spend_keys, so that using a key is no change that workers must hear of.
CREATE TABLE spend_key_uses (
    spend_key_id text PRIMARY KEY REFERENCES spend_keys,
    last_used_at timestamptz NOT NULL
);

-- The merchant's wallet: what was paid in. What went out is the cost of managed-key traffic.
CREATE TABLE wallets (
    merchant_id text PRIMARY KEY REFERENCES merchants,
    wallet_id   text NOT NULL UNIQUE,
    funded_e10  bigint NOT NULL
);
ALTER TABLE usage_rollups ADD COLUMN managed_cost_e10 bigint NOT NULL DEFAULT 0;
UPDATE usage_rollups u SET managed_cost_e10 = r.managed_e10
FROM (SELECT merchant_id, date_bin('15 minutes', created_at, 'epoch') AS bucket,
             coalesce(customer_id, '') AS customer_id, coalesce(meter_id, '') AS meter_id,
             sum(cost_e10)::bigint AS managed_e10
      FROM requests WHERE provider_key_type = 'managed' GROUP BY 1, 2, 3, 4) r
WHERE (u.merchant_id, u.bucket, u.customer_id, u.meter_id)
    = (r.merchant_id, r.bucket, r.customer_id, r.meter_id);
