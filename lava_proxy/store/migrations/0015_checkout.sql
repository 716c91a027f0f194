-- The hosted checkout page: who buys, where they pay, and at most one payment of a session.
--
-- buyer_id is the id that a new customer will have; the customer itself is made by the payment that
-- succeeds, so that a checkout that is given up leaves none behind.

ALTER TABLE checkout_sessions
    ADD COLUMN buyer_id     text,
    ADD COLUMN buyer_name   text,
    ADD COLUMN buyer_email  text,
    -- The payment provider's own page, once it is known.
    ADD COLUMN redirect_url text;

CREATE UNIQUE INDEX payments_by_session ON payments (checkout_session_id)
    WHERE checkout_session_id IS NOT NULL;
