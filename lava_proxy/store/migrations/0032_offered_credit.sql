-- What a payment for a bundle was begun for: the bundle may be another one by the time it is paid.
-- NULL for other payments, and for those of before: what the bundle gives then.

ALTER TABLE payments ADD COLUMN credit_e10 bigint CHECK (credit_e10 >= 0);
