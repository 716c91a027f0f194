-- name: wallet
-- What was paid into a merchant's wallet, and what its managed-key calls cost. Money of the test
-- mode pays for nothing.
-- args: merchant_id text, test boolean
SELECT coalesce((SELECT funded_e10 FROM wallets
                 WHERE merchant_id = :merchant_id::text AND test = :test::boolean), 0)::bigint
           AS funded_e10,
       coalesce((SELECT sum(cost_e10) FROM wallet_costs
                 WHERE merchant_id = :merchant_id::text AND NOT :test::boolean), 0)::bigint
           AS cost_e10;

-- name: wallet_size
-- The size of the limit that keeps calls within a wallet: what was paid in, less what calls cost
-- that did not ask the limit (it was not enforced then).
-- args: merchant_id text, owner_id text
SELECT (coalesce((SELECT funded_e10 FROM wallets
                  WHERE merchant_id = :merchant_id::text AND NOT test), 0)
        - coalesce((SELECT sum(cost_e10) FROM wallet_costs
                    WHERE merchant_id = :merchant_id::text), 0)
        + coalesce((SELECT spent_e10 FROM credit_grants
                    WHERE grant_id = :owner_id::text AND kind = 'limit'), 0))::bigint;

-- name: fund_wallet
-- Money was paid in, or (less than nothing, of a wallet that is there) went back.
-- args: merchant_id text, test boolean, wallet_id text, amount bigint
INSERT INTO wallets AS w (merchant_id, test, wallet_id, funded_e10)
VALUES (:merchant_id::text, :test::boolean, :wallet_id::text, greatest(:amount::bigint, 0))
ON CONFLICT (merchant_id, test) DO UPDATE SET funded_e10 = w.funded_e10 + :amount::bigint;

-- name: waiting
-- Payments into a merchant's wallet that nobody has confirmed yet, oldest first.
-- args: merchant_id text, most int
SELECT payment_id, amount_e10, created_at FROM payments
WHERE merchant_id = :merchant_id::text AND purpose = 'wallet' AND status = 'pending'
ORDER BY created_at, payment_id LIMIT :most::int;

-- name: wallet_of_payment
-- Into whose wallet a payment goes.
-- args: payment_id text
SELECT merchant_id FROM payments WHERE payment_id = :payment_id::text AND purpose = 'wallet';
