-- Forward tokens (opaque, scoped stand-ins for a secret key), the merchant's fallback chain, and the
-- one-time codes of a login.

CREATE TABLE forward_tokens (
    forward_token_id text PRIMARY KEY,
    merchant_id      text NOT NULL REFERENCES merchants,
    token_hash       bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    hint             text NOT NULL,
    test             boolean NOT NULL DEFAULT false,
    customer_id      text REFERENCES customers,
    meter_id         text REFERENCES meters,
    disable_billing  boolean NOT NULL DEFAULT false,
    expires_at       timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    revoked_at       timestamptz,
    CHECK (customer_id IS NULL OR meter_id IS NOT NULL)
);
CREATE INDEX forward_tokens_newest
    ON forward_tokens (merchant_id, created_at DESC, forward_token_id DESC)
    WHERE revoked_at IS NULL;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON forward_tokens
    FOR EACH ROW EXECUTE FUNCTION note_change('forward_token_id');

-- [[url, model], ...], at most five; NULL: none.
ALTER TABLE merchants ADD COLUMN fallback_chain jsonb;

-- A login's code: only its hash is here, and the new key is sealed under a key made from the code,
-- so that the database alone gives nothing away.
CREATE TABLE auth_codes (
    code_hash     bytea PRIMARY KEY CHECK (length(code_hash) = 32),
    secret_key_id text NOT NULL REFERENCES secret_keys,
    sealed        bytea NOT NULL,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX auth_codes_by_expiry ON auth_codes (expires_at);
