-- A forward token may have a limit of its own: provider cost per cycle, in 10^-10 USD.

ALTER TABLE forward_tokens
    ADD COLUMN spend_limit_e10 bigint CHECK (spend_limit_e10 > 0),
    ADD COLUMN spend_cycle text CHECK (spend_cycle IN ('daily', 'weekly', 'monthly', 'total')),
    ADD CHECK ((spend_limit_e10 IS NULL) = (spend_cycle IS NULL));
