-- Requests whose price came late: what they cost and were charged once it was known. The request
-- stays as it was booked; the differences are ledger transactions of their own, under its id.

CREATE TABLE reratings (
    merchant_id       text NOT NULL,
    request_id        text NOT NULL,
    created_at        timestamptz NOT NULL, -- the request's, which names its quarter of an hour
    transaction_id    text NOT NULL,
    price_version     text NOT NULL,
    cost_e10          bigint NOT NULL CHECK (cost_e10 >= 0),
    charge_e10        bigint NOT NULL CHECK (charge_e10 >= 0),
    cost_change_e10   bigint NOT NULL,
    charge_change_e10 bigint NOT NULL,
    rerated_at        timestamptz NOT NULL,
    booked_xid        bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    PRIMARY KEY (merchant_id, request_id)
);
CREATE INDEX reratings_by_booking ON reratings (booked_xid);
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON reratings
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON reratings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE INDEX requests_without_a_price ON requests (created_at, request_id)
    WHERE flags && ARRAY['unpriced', 'price_assumed'];
