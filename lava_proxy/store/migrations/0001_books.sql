-- The books: who may spend (merchants, keys, customers, meters), what they may spend (grants,
-- leases), what they spent (requests, ledger), and the change feed that keeps workers up to date.
--
-- Money is BIGINT in 10^-10 USD; sums are cast back with ::bigint. The ledger is append-only:
-- triggers refuse UPDATE, DELETE and TRUNCATE, also for a superuser. One row of `accounts` is the
-- lock for everything a customer owns: whoever changes grants, leases or counters holds it, and
-- takes several in the order of owner_id.

CREATE TABLE merchants (
    merchant_id  text PRIMARY KEY,
    name         text NOT NULL,
    upgrade_url  text,
    require_plan boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE secret_keys (
    secret_key_id text PRIMARY KEY,
    merchant_id   text NOT NULL REFERENCES merchants,
    name          text NOT NULL,
    key_hash      bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    hint          text NOT NULL,
    test          boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);
CREATE INDEX secret_keys_by_merchant ON secret_keys (merchant_id, created_at);

CREATE TABLE customers (
    customer_id  text PRIMARY KEY,
    merchant_id  text NOT NULL REFERENCES merchants,
    reference_id text CHECK (length(reference_id) <= 255),
    phone        text NOT NULL DEFAULT '',
    email        text NOT NULL DEFAULT '',
    first_name   text NOT NULL DEFAULT '',
    last_name    text NOT NULL DEFAULT '',
    metadata     jsonb,
    created_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz
);
CREATE UNIQUE INDEX customers_reference
    ON customers (merchant_id, reference_id) WHERE deleted_at IS NULL;
CREATE INDEX customers_newest ON customers (merchant_id, created_at DESC, customer_id DESC);

CREATE TABLE meters (
    meter_id      text PRIMARY KEY,
    merchant_id   text NOT NULL REFERENCES merchants,
    slug          text NOT NULL,
    name          text NOT NULL,
    rate_type     text NOT NULL CHECK (rate_type IN ('fixed', 'percentage')),
    tier_type     text NOT NULL
        CHECK (tier_type IN ('tokens_1m', 'characters_1m', 'minutes', 'requests')),
    -- [[start in units, rate in 10^-12], ...]
    tiers         jsonb NOT NULL,
    enforcement   text NOT NULL DEFAULT 'sliced'
        CHECK (enforcement IN ('sliced', 'strict', 'soft')),
    overdraft_e10 bigint NOT NULL DEFAULT 0 CHECK (overdraft_e10 >= 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz
);
CREATE UNIQUE INDEX meters_slug ON meters (merchant_id, slug) WHERE deleted_at IS NULL;
CREATE INDEX meters_newest ON meters (merchant_id, created_at DESC, meter_id DESC);

CREATE TABLE price_overrides (
    override_id    text PRIMARY KEY,
    provider       text NOT NULL,
    match          text NOT NULL CHECK (match IN ('exact', 'prefix', 'default')),
    model          text NOT NULL DEFAULT '',
    -- {"input_mtok": "2.50", ...}: decimal strings, named as in docs/metering.md
    rates          jsonb NOT NULL,
    effective_from timestamptz NOT NULL DEFAULT now(),
    created_at     timestamptz NOT NULL DEFAULT now(),
    removed_at     timestamptz
);

-- Credit ---------------------------------------------------------------------------------------

CREATE TABLE accounts (
    owner_id             text PRIMARY KEY,
    merchant_id          text NOT NULL REFERENCES merchants,
    -- Charges that no grant covered: reports, late rows, overshoot, agreed overdraft.
    debt_e10             bigint NOT NULL DEFAULT 0 CHECK (debt_e10 >= 0),
    -- Overdraft that workers hold in leases.
    overdraft_leased_e10 bigint NOT NULL DEFAULT 0 CHECK (overdraft_leased_e10 >= 0)
);

CREATE TABLE credit_grants (
    grant_id      text PRIMARY KEY,
    owner_id      text NOT NULL REFERENCES accounts,
    merchant_id   text NOT NULL REFERENCES merchants,
    kind          text NOT NULL CHECK (kind IN ('cycle', 'bundle', 'operator')),
    amount_e10    bigint NOT NULL CHECK (amount_e10 > 0),
    available_e10 bigint NOT NULL CHECK (available_e10 >= 0),
    leased_e10    bigint NOT NULL DEFAULT 0 CHECK (leased_e10 >= 0),
    spent_e10     bigint NOT NULL DEFAULT 0 CHECK (spent_e10 >= 0),
    expired_e10   bigint NOT NULL DEFAULT 0 CHECK (expired_e10 >= 0),
    withdrawn_e10 bigint NOT NULL DEFAULT 0 CHECK (withdrawn_e10 >= 0),
    expires_at    timestamptz,
    note          text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK (amount_e10 = available_e10 + leased_e10 + spent_e10 + expired_e10 + withdrawn_e10)
);
CREATE INDEX credit_grants_open ON credit_grants (owner_id)
    WHERE available_e10 > 0 OR leased_e10 > 0;
CREATE INDEX credit_grants_by_owner ON credit_grants (owner_id, created_at DESC);

CREATE TABLE leases (
    lease_id     text PRIMARY KEY,
    owner_id     text NOT NULL REFERENCES accounts,
    holder_id    text NOT NULL,
    amount_e10   bigint NOT NULL CHECK (amount_e10 > 0),
    spent_e10    bigint NOT NULL DEFAULT 0 CHECK (spent_e10 >= 0),
    returned_e10 bigint NOT NULL DEFAULT 0 CHECK (returned_e10 >= 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    closed_at    timestamptz,
    CHECK (amount_e10 >= spent_e10 + returned_e10),
    CHECK (closed_at IS NULL OR amount_e10 = spent_e10 + returned_e10)
);
CREATE INDEX leases_open_by_owner ON leases (owner_id) WHERE closed_at IS NULL;
CREATE INDEX leases_open_by_holder ON leases (holder_id) WHERE closed_at IS NULL;
CREATE INDEX leases_open_by_expiry ON leases (expires_at) WHERE closed_at IS NULL;

-- Which grants a lease took from, in burn order; what is left of each share.
CREATE TABLE lease_parts (
    lease_id   text NOT NULL REFERENCES leases,
    seq        int NOT NULL,
    grant_id   text REFERENCES credit_grants, -- NULL: overdraft
    amount_e10 bigint NOT NULL CHECK (amount_e10 > 0),
    left_e10   bigint NOT NULL CHECK (left_e10 >= 0 AND left_e10 <= amount_e10),
    PRIMARY KEY (lease_id, seq)
);

-- Units used per tier scope: a customer's meter in one cycle, or a meter alone in one month.
CREATE TABLE usage_counters (
    owner_id text NOT NULL REFERENCES accounts,
    meter_id text NOT NULL,
    cycle    text NOT NULL,
    units    bigint NOT NULL CHECK (units >= 0),
    PRIMARY KEY (owner_id, meter_id, cycle)
);

-- Requests and ledger ----------------------------------------------------------------------------

-- Every request id that was ever booked, for ever: the exactly-once key.
CREATE TABLE request_ids (
    merchant_id  text NOT NULL,
    request_id   text NOT NULL,
    created_at   timestamptz NOT NULL,
    -- What was reported under this id; NULL for ids of our own making.
    content_hash bytea,
    PRIMARY KEY (merchant_id, request_id)
);

CREATE TABLE requests (
    merchant_id        text NOT NULL,
    request_id         text NOT NULL,
    created_at         timestamptz NOT NULL,
    customer_id        text,
    meter_id           text,
    cycle              text NOT NULL,
    provider           text NOT NULL,
    provider_key_type  text NOT NULL,
    model              text,
    endpoint           text NOT NULL,
    response_id        text,
    status             text NOT NULL CHECK (status IN ('pending', 'completed', 'error')),
    outcome            text NOT NULL,
    usage_source       text NOT NULL,
    stream             boolean NOT NULL,
    input_tokens       bigint NOT NULL CHECK (input_tokens >= 0),
    output_tokens      bigint NOT NULL CHECK (output_tokens >= 0),
    cache_read_tokens  bigint NOT NULL CHECK (cache_read_tokens >= 0),
    cache_write_tokens bigint NOT NULL CHECK (cache_write_tokens >= 0),
    reasoning_tokens   bigint NOT NULL CHECK (reasoning_tokens >= 0),
    input_characters   bigint NOT NULL CHECK (input_characters >= 0),
    output_characters  bigint NOT NULL CHECK (output_characters >= 0),
    input_ms           bigint NOT NULL CHECK (input_ms >= 0),
    output_ms          bigint NOT NULL CHECK (output_ms >= 0),
    units              bigint NOT NULL CHECK (units >= 0),
    input_cost_e10     bigint NOT NULL,
    output_cost_e10    bigint NOT NULL,
    cost_e10           bigint NOT NULL,
    charge_e10         bigint NOT NULL CHECK (charge_e10 >= 0),
    rate_type          text,
    -- [[tier start, rate in 10^-12, units, amount in 10^-10], ...]
    breakdown          jsonb NOT NULL,
    tier_type          text,
    metadata           jsonb,
    price_version      text,
    flags              text[] NOT NULL,
    duration_ms        bigint,
    first_byte_ms      bigint,
    completed_at       timestamptz
) PARTITION BY RANGE (created_at);
CREATE TABLE requests_default PARTITION OF requests DEFAULT;
CREATE INDEX requests_newest ON requests (merchant_id, created_at DESC, request_id DESC);
CREATE INDEX requests_by_customer
    ON requests (merchant_id, customer_id, created_at DESC, request_id DESC);

CREATE TABLE ledger_entries (
    entry_id       bigint GENERATED ALWAYS AS IDENTITY,
    transaction_id text NOT NULL,
    merchant_id    text NOT NULL,
    -- customer:<id>, merchant:<id>:revenue, merchant:<id>:cost, provider:<name>,
    -- operator:grants, expired
    account        text NOT NULL,
    amount_e10     bigint NOT NULL,
    kind           text NOT NULL
        CHECK (kind IN ('charge', 'cost', 'grant', 'withdrawal', 'expiry')),
    request_id     text,
    customer_id    text,
    created_at     timestamptz NOT NULL
) PARTITION BY RANGE (created_at);
CREATE TABLE ledger_entries_default PARTITION OF ledger_entries DEFAULT;
CREATE INDEX ledger_newest ON ledger_entries (merchant_id, entry_id DESC);
CREATE INDEX ledger_by_customer ON ledger_entries (merchant_id, customer_id, entry_id DESC);
CREATE INDEX ledger_by_request ON ledger_entries (merchant_id, request_id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: corrections are new rows';
END $$;
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON ledger_entries_default
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A transaction's entries are inserted by one statement, so its sum can be checked right there.
CREATE FUNCTION check_transactions_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unbalanced text;
BEGIN
    SELECT transaction_id INTO unbalanced FROM new_entries
    GROUP BY transaction_id HAVING sum(amount_e10) <> 0 LIMIT 1;
    IF unbalanced IS NOT NULL THEN
        RAISE EXCEPTION 'ledger transaction % does not sum to zero', unbalanced;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_balanced AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS new_entries
    FOR EACH STATEMENT EXECUTE FUNCTION check_transactions_balance();

-- Rows that could not be booked as they are; their charge is kept here until somebody decides.
CREATE TABLE quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id   text NOT NULL,
    request_id    text NOT NULL,
    settlement    bytea NOT NULL,
    error         text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (merchant_id, request_id)
);

-- Objects made at a provider with a managed key: only their maker's customer may name them.
CREATE TABLE provider_objects (
    provider    text NOT NULL,
    object_id   text NOT NULL,
    merchant_id text NOT NULL,
    customer_id text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, object_id)
);

-- Objects whose usage is booked: reading one again costs nothing.
CREATE TABLE metered_objects (
    provider   text NOT NULL,
    object_id  text NOT NULL,
    metered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, object_id)
);

CREATE TABLE idempotency_keys (
    merchant_id text NOT NULL,
    key         text NOT NULL,
    body_hash   bytea NOT NULL,
    status      int NOT NULL,
    answer      bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Change feed --------------------------------------------------------------------------------------

-- What workers keep in memory and must hear about. NOTIFY is the fast way, polling this table the
-- net below it.
CREATE TABLE changes (
    change_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL,
    object_id  text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX changes_recent ON changes (changed_at);

CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    object_id text := coalesce(to_jsonb(NEW), to_jsonb(OLD)) ->> TG_ARGV[0];
BEGIN
    INSERT INTO changes (kind, object_id) VALUES (TG_TABLE_NAME, object_id);
    PERFORM pg_notify('lava_changes', TG_TABLE_NAME || ' ' || object_id);
    RETURN NULL;
END $$;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON merchants
    FOR EACH ROW EXECUTE FUNCTION note_change('merchant_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON secret_keys
    FOR EACH ROW EXECUTE FUNCTION note_change('secret_key_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON customers
    FOR EACH ROW EXECUTE FUNCTION note_change('customer_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON meters
    FOR EACH ROW EXECUTE FUNCTION note_change('meter_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON price_overrides
    FOR EACH ROW EXECUTE FUNCTION note_change('override_id');

-- Partitions ------------------------------------------------------------------------------------

-- Makes the monthly partitions from this month to `ahead` months on; returns how many are new.
-- The default partitions stay empty while this is called in time; they are there so that a late
-- call loses nothing.
CREATE FUNCTION ensure_partitions(ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    made int := 0;
    first timestamptz;
    part text;
    parent text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('lava ensure_partitions'));
    FOR i IN 0..ahead LOOP
        first := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i))
            AT TIME ZONE 'UTC';
        FOREACH parent IN ARRAY ARRAY['requests', 'ledger_entries'] LOOP
            part := parent || to_char(first AT TIME ZONE 'UTC', '_YYYYMM');
            CONTINUE WHEN to_regclass(part) IS NOT NULL;
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                part, parent, first,
                ((first AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC');
            IF parent = 'ledger_entries' THEN
                EXECUTE format(
                    'CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON %I '
                    'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', part);
            END IF;
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
SELECT ensure_partitions(3);
