-- Calls that have run for a moment, so that every worker can say that they are there. Not logged:
-- they are gone with a crash of PostgreSQL, and each process then tells its own again.

CREATE UNLOGGED TABLE open_call_holders (
    holder_id text PRIMARY KEY,
    seen_at timestamptz NOT NULL
);

CREATE UNLOGGED TABLE open_calls (
    merchant_id text NOT NULL,
    request_id text NOT NULL,
    holder_id text NOT NULL REFERENCES open_call_holders ON DELETE CASCADE,
    facts bytea NOT NULL,
    PRIMARY KEY (merchant_id, request_id)
);

CREATE INDEX open_calls_holder ON open_calls (holder_id);
