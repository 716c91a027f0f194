-- Money that goes back to a payer: refunds and disputes, as the payment provider tells of them. A row
-- says how one of them stands, so what they come to does not depend on the order of the messages,
-- nor on whether the payment itself is known yet.

CREATE TABLE payment_reversals (
    provider     text NOT NULL,
    -- The provider's id of the refund or dispute; for a total, of the charge.
    reversal_ref text NOT NULL,
    -- The provider's id of the payment.
    payment_ref  text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('refund', 'dispute', 'total')),
    amount_e10   bigint NOT NULL CHECK (amount_e10 >= 0),
    -- It came to nothing, for good: a refund that failed, a dispute that was won.
    over         boolean NOT NULL,
    PRIMARY KEY (provider, reversal_ref)
);
CREATE INDEX payment_reversals_by_payment ON payment_reversals (provider, payment_ref);

-- Of the credit that a payment gave: what its reversals undo by now (what had expired by itself
-- included), and what was really taken from the customer for it.
ALTER TABLE payments
    ADD COLUMN reversed_e10 bigint NOT NULL DEFAULT 0 CHECK (reversed_e10 >= 0),
    ADD COLUMN taken_e10    bigint NOT NULL DEFAULT 0
        CHECK (taken_e10 >= 0 AND taken_e10 <= reversed_e10),
    -- When the provider last told of a failure, by its clock.
    ADD COLUMN told_at      timestamptz;

-- What became of a means of payment when it was last charged, by the provider's clock.
CREATE TABLE payment_methods (
    provider      text NOT NULL,
    method_ref    text NOT NULL,
    told_at       timestamptz NOT NULL,
    error_code    text,
    error_message text,
    PRIMARY KEY (provider, method_ref)
);
