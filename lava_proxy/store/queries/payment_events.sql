-- name: hear_event
-- Notes a message of a provider's; no row comes back when it was heard before.
-- args: provider text, event_id text, now timestamptz
INSERT INTO payment_events (provider, event_id, received_at)
VALUES (:provider::text, :event_id::text, :now::timestamptz)
ON CONFLICT DO NOTHING RETURNING event_id;

-- name: payment_told_of
-- The payment that a message is about: by our id, or by the provider's.
-- args: provider text, payment_id text, ref text
SELECT payment_id, merchant_id, customer_id, purpose, amount_e10, status, provider_ref,
       next_attempt_at
FROM payments
WHERE provider = :provider::text
  AND (payment_id = :payment_id::text
       OR (:payment_id::text IS NULL AND provider_ref = :ref::text));

-- name: note_ref
-- The provider's id of a payment, unless another is known.
-- args: payment_id text, ref text
UPDATE payments SET provider_ref = :ref::text
WHERE payment_id = :payment_id::text AND provider_ref IS NULL;

-- name: tell_failure
-- A payer's try on a page came to nothing, or waits for them; the newest news counts, and a failure
-- before a wait of the same second. Whoever is asked by a worker is left to it.
-- args: payment_id text, status text, code text, message text, at timestamptz
UPDATE payments
SET status = :status::text, error_code = :code::text, error_message = :message::text,
    told_at = :at::timestamptz
WHERE payment_id = :payment_id::text AND status IN ('pending', 'requires_action', 'failed')
  AND next_attempt_at IS NULL
  AND (told_at IS NULL OR told_at < :at::timestamptz
       OR (told_at = :at::timestamptz AND :status::text = 'failed'));

-- name: save_payer
-- Who a customer, or a merchant for its wallet, is at a provider; the first answer stays.
-- args: owner_id text, provider text, payer_ref text, now timestamptz
INSERT INTO payers (owner_id, provider, payer_ref, merchant_id, created_at)
SELECT :owner_id::text, :provider::text, :payer_ref::text, o.merchant_id, :now::timestamptz
FROM (SELECT merchant_id FROM customers WHERE customer_id = :owner_id::text
      UNION ALL
      SELECT merchant_id FROM merchants WHERE merchant_id = :owner_id::text) o
ON CONFLICT DO NOTHING;

-- name: payer_ref
-- Who somebody is at a provider.
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
