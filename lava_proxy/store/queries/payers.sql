-- name: save_payer
-- Who a customer, or a merchant for its wallet, is at a provider; the first answer stays.
-- args: owner_id text, provider text, payer_ref text, now timestamptz
INSERT INTO payers (owner_id, provider, payer_ref, merchant_id, created_at)
SELECT :owner_id::text, :provider::text, :payer_ref::text, o.merchant_id, :now::timestamptz
FROM (SELECT merchant_id FROM customers WHERE customer_id = :owner_id::text
      UNION ALL
      SELECT merchant_id FROM merchants WHERE merchant_id = :owner_id::text) o
ON CONFLICT DO NOTHING;

-- name: forget_payer
-- The provider does not know them any more, and is about to meet them anew.
-- args: owner_id text, provider text, payer_ref text
DELETE FROM payers WHERE owner_id = :owner_id::text AND provider = :provider::text
  AND payer_ref = :payer_ref::text;

-- name: payer_of
-- Who somebody is at a payment provider.
-- args: owner_id text, provider text
SELECT payer_ref FROM payers WHERE owner_id = :owner_id::text AND provider = :provider::text;

-- name: owner_of_payer
-- Who of a merchant's is behind a payer: a customer, or the merchant itself.
-- args: payer_ref text, provider text, merchant_id text
SELECT owner_id FROM payers
WHERE payer_ref = :payer_ref::text AND provider = :provider::text
  AND merchant_id = :merchant_id::text;

-- name: note_method
-- What became of a means of payment when it was charged; the newest news counts, and of the same
-- second a failure.
-- args: provider text, method_ref text, at timestamptz, code text, message text
INSERT INTO payment_methods AS m (provider, method_ref, told_at, error_code, error_message)
VALUES (:provider::text, :method_ref::text, :at::timestamptz, :code::text, :message::text)
ON CONFLICT (provider, method_ref) DO UPDATE
SET told_at = excluded.told_at, error_code = excluded.error_code,
    error_message = excluded.error_message
WHERE m.told_at < excluded.told_at
   OR (m.told_at = excluded.told_at AND m.error_code IS NULL);

-- name: failed_methods
-- Of these means of payment, those that failed when they were last charged.
-- args: provider text, method_refs text[]
SELECT method_ref, told_at, error_code, error_message FROM payment_methods
WHERE provider = :provider::text AND method_ref = ANY(:method_refs::text[])
  AND error_code IS NOT NULL;
