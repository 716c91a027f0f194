-- What a forward token used of its limit, once the limit's account is dropped (store/limits.py).

ALTER TABLE forward_tokens
    ADD COLUMN spent_e10 bigint NOT NULL DEFAULT 0 CHECK (spent_e10 >= 0);
