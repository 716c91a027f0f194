-- Usage per quarter of an hour, and what the audit has verified so far.
--
-- A quarter of an hour fits every fixed UTC offset, so days at any offset are sums of whole buckets.
-- A row changes in the transaction that books its requests, under the lock of the account that it
-- belongs to (the customer's, else the merchant's own), so workers cannot meet in two orders here.
--
-- booked_xid is the transaction that wrote a row. All below the oldest one still running are
-- decided and visible, whenever they began, so "what is new since the last audit" skips nothing.
-- Rows from before this migration have 0: the first audit sees them all.

ALTER TABLE requests ADD COLUMN booked_xid bigint NOT NULL DEFAULT 0;
ALTER TABLE requests ALTER COLUMN booked_xid SET DEFAULT pg_current_xact_id()::text::bigint;
ALTER TABLE ledger_entries ADD COLUMN booked_xid bigint NOT NULL DEFAULT 0;
ALTER TABLE ledger_entries ALTER COLUMN booked_xid SET DEFAULT pg_current_xact_id()::text::bigint;
CREATE INDEX requests_by_booking ON requests USING brin (booked_xid) WITH (autosummarize = on);
CREATE INDEX ledger_by_booking ON ledger_entries USING brin (booked_xid) WITH (autosummarize = on);

CREATE TABLE usage_rollups (
    merchant_id       text NOT NULL,
    bucket            timestamptz NOT NULL,
    customer_id       text NOT NULL, -- '': nobody's
    meter_id          text NOT NULL, -- '': none
    requests          bigint NOT NULL,
    input_tokens      bigint NOT NULL,
    output_tokens     bigint NOT NULL,
    input_characters  bigint NOT NULL,
    output_characters bigint NOT NULL,
    input_ms          bigint NOT NULL,
    output_ms         bigint NOT NULL,
    cost_e10          bigint NOT NULL,
    charge_e10        bigint NOT NULL,
    PRIMARY KEY (merchant_id, bucket, customer_id, meter_id)
);
CREATE INDEX usage_rollups_by_customer ON usage_rollups (merchant_id, customer_id, bucket);
INSERT INTO usage_rollups
SELECT merchant_id, date_bin('15 minutes', created_at, 'epoch'), coalesce(customer_id, ''),
       coalesce(meter_id, ''), count(*), sum(input_tokens)::bigint, sum(output_tokens)::bigint,
       sum(input_characters)::bigint, sum(output_characters)::bigint, sum(input_ms)::bigint,
       sum(output_ms)::bigint, sum(cost_e10)::bigint, sum(charge_e10)::bigint
FROM requests GROUP BY 1, 2, 3, 4;

-- One row: the last audit, and up to which transaction the sums below hold.
CREATE TABLE audit_state (
    only_one    boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    upto_xid    bigint NOT NULL DEFAULT 0,
    -- Another server (a restored copy) counts transactions of its own.
    server      text NOT NULL DEFAULT '',
    checked_at  timestamptz,
    sound_at    timestamptz,
    differences int NOT NULL DEFAULT 0
);
INSERT INTO audit_state DEFAULT VALUES;

CREATE TABLE audit_ledger (
    account    text PRIMARY KEY,
    amount_e10 bigint NOT NULL
);
CREATE TABLE audit_units (
    owner_id text NOT NULL,
    meter_id text NOT NULL,
    cycle    text NOT NULL,
    units    bigint NOT NULL,
    PRIMARY KEY (owner_id, meter_id, cycle)
);

-- Rows that every batch updates find room on their own page, so no index has to know.
ALTER TABLE accounts SET (fillfactor = 70);
ALTER TABLE credit_grants SET (fillfactor = 70);
ALTER TABLE leases SET (fillfactor = 70);
ALTER TABLE lease_parts SET (fillfactor = 70);
ALTER TABLE usage_counters SET (fillfactor = 70);
ALTER TABLE usage_rollups SET (fillfactor = 70);
