-- What a merchant's wallet is made of: what was paid in, less what managed-key calls cost.
--
-- Money of the test mode has a wallet of its own: it was never paid, so it covers no call.

ALTER TABLE wallets ADD COLUMN test boolean NOT NULL DEFAULT false;
ALTER TABLE wallets DROP CONSTRAINT wallets_pkey;
ALTER TABLE wallets ADD PRIMARY KEY (merchant_id, test);
ALTER TABLE wallets ADD CHECK (funded_e10 >= 0);

-- The cost of a merchant's managed-key calls so far, added up by every batch. In slots, so that
-- workers that book for one merchant seldom wait for each other.
CREATE TABLE wallet_costs (
    merchant_id text NOT NULL,
    slot        int NOT NULL,
    cost_e10    bigint NOT NULL,
    PRIMARY KEY (merchant_id, slot)
) WITH (fillfactor = 70);
INSERT INTO wallet_costs
SELECT merchant_id, 0, sum(managed_cost_e10)::bigint FROM usage_rollups
GROUP BY merchant_id HAVING sum(managed_cost_e10) <> 0;

-- NOT VALID: the rows that are there satisfy the narrower check, so nobody has to read them all.
ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_kind_check;
ALTER TABLE ledger_entries ADD CONSTRAINT ledger_entries_kind_check
    CHECK (kind IN ('charge', 'cost', 'grant', 'withdrawal', 'expiry', 'funding')) NOT VALID;

-- A login's new key is made when its code is used, so a code that nobody uses leaves no key behind
-- and nothing has to be sealed. secret_key_id is the key of whoever logged in: without it in force
-- the code is worth nothing.
ALTER TABLE auth_codes DROP COLUMN sealed;
