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
