-- name: open_payment
-- A payment before its provider is asked; harmless when it is there.
-- args: payment_id text, merchant_id text, customer_id text, purpose text, amount bigint,
--   provider text, plan_id text, subscription_id text, credit_bundle_id text,
--   credit bigint, checkout_session_id text, due_at timestamptz, look_at timestamptz,
--   now timestamptz
INSERT INTO payments (payment_id, merchant_id, customer_id, purpose, amount_e10, status, provider,
                      plan_id, subscription_id, credit_bundle_id, credit_e10, checkout_session_id,
                      next_attempt_at, look_at, created_at)
VALUES (:payment_id::text, :merchant_id::text, :customer_id::text, :purpose::text, :amount::bigint,
        'pending', :provider::text, :plan_id::text, :subscription_id::text,
        :credit_bundle_id::text, :credit::bigint, :checkout_session_id::text, :due_at::timestamptz,
        :look_at::timestamptz, :now::timestamptz)
ON CONFLICT DO NOTHING;

-- name: ask_again
-- A payment is to be asked for once more, unless it is made.
-- args: payment_id text, provider text, now timestamptz, look_at timestamptz
UPDATE payments
SET status = 'pending', provider = :provider::text, next_attempt_at = :now::timestamptz,
    look_at = :look_at::timestamptz, looks = 0, page_ref = NULL, error_code = NULL,
    error_message = NULL
WHERE payment_id = :payment_id::text AND status <> 'succeeded';

-- name: set_payer
-- The customer that a payment made.
-- args: payment_id text, customer_id text
UPDATE payments SET customer_id = :customer_id::text WHERE payment_id = :payment_id::text;

-- name: open_renewal
-- The payment for a cycle, once per cycle; whoever asks the provider first puts its name in.
-- args: payment_id text, merchant_id text, customer_id text, amount bigint, credit bigint,
--   plan_id text, subscription_id text, seq int, now timestamptz
INSERT INTO payments (payment_id, merchant_id, customer_id, purpose, amount_e10, status, provider,
                      plan_id, subscription_id, seq, credit_e10, next_attempt_at, created_at)
VALUES (:payment_id::text, :merchant_id::text, :customer_id::text, 'renewal', :amount::bigint,
        'pending', '', :plan_id::text, :subscription_id::text, :seq::int, :credit::bigint,
        :now::timestamptz, :now::timestamptz)
ON CONFLICT DO NOTHING;

-- name: open_top_up
-- The payment for a top-up, if one is needed: credit is under the low-water mark (or would suffice
-- for `short` with the bundle, not without), none is open (one that waits for its payer can still
-- succeed), no pause after a decline runs, and the month's cap, the customer's own or `month_max`,
-- has room. The account is locked.
-- args: payment_id text, customer_id text, now timestamptz, low_percent int, month_max bigint,
--   month_start timestamptz, short bigint, reach bigint
INSERT INTO payments (payment_id, merchant_id, customer_id, purpose, amount_e10, status, provider,
                      plan_id, subscription_id, seq, credit_bundle_id, credit_e10,
                      next_attempt_at, created_at)
SELECT :payment_id::text, s.merchant_id, s.customer_id, 'top_up', b.cost_e10, 'pending', '',
       s.plan_id, s.subscription_id, coalesce(last.seq, 0) + 1, b.credit_bundle_id, b.credit_e10,
       :now::timestamptz, :now::timestamptz
FROM subscriptions s
JOIN customers u ON u.customer_id = s.customer_id
JOIN credit_bundles b ON b.credit_bundle_id = s.top_up_bundle_id AND b.deleted_at IS NULL
CROSS JOIN LATERAL (
    SELECT coalesce(sum(g.leased_e10 + CASE WHEN g.expires_at <= :now::timestamptz THEN 0
                                            ELSE g.available_e10 END), 0)::bigint AS left_e10
    FROM credit_grants g
    WHERE g.owner_id = s.customer_id AND (g.available_e10 > 0 OR g.leased_e10 > 0)) c
LEFT JOIN LATERAL (
    SELECT p.seq, p.status, p.next_attempt_at FROM payments p
    WHERE p.subscription_id = s.subscription_id AND p.purpose = 'top_up'
    ORDER BY p.seq DESC LIMIT 1) last ON true
WHERE s.customer_id = :customer_id::text AND s.status = 'active' AND s.past_due_since IS NULL
  AND (c.left_e10 < b.credit_e10 / 100 * :low_percent::int
       OR (:short::bigint > :reach::bigint AND :reach::bigint + b.credit_e10 >= :short::bigint))
  AND (last.status IS NULL OR last.status IN ('succeeded', 'cancelled')
       OR (last.status = 'failed' AND last.next_attempt_at <= :now::timestamptz))
  AND b.cost_e10 + (
      SELECT coalesce(sum(p.amount_e10), 0)::bigint FROM payments p
      WHERE p.customer_id = s.customer_id AND p.purpose = 'top_up'
        AND p.created_at >= :month_start::timestamptz
        AND p.status IN ('pending', 'requires_action', 'succeeded'))
      <= coalesce(u.top_up_max_e10, :month_max::bigint)
ON CONFLICT DO NOTHING
RETURNING payment_id;

-- name: coming
-- Whether somebody is buying credit for this customer right now: nobody has answered yet, and the
-- provider is still to be asked or is being asked. Whose clock says what does not matter.
-- args: customer_id text
SELECT EXISTS (
    SELECT FROM payments p
    WHERE p.customer_id = :customer_id::text AND p.status = 'pending'
      AND p.purpose IN ('top_up', 'renewal') AND p.attempts = 0
      AND p.next_attempt_at IS NOT NULL);

-- name: wake_workers
-- Tells workers that a payment is to be made, once this transaction commits.
SELECT pg_notify('lava_work', 'payments');

-- name: claim_payments
-- Takes payments that are due, so that no other process asks for them within the next minute.
-- args: purpose text, provider text, now timestamptz, again_at timestamptz, most int
UPDATE payments p SET next_attempt_at = :again_at::timestamptz, provider = :provider::text
FROM (SELECT payment_id FROM payments
      WHERE status IN ('pending', 'requires_action') AND next_attempt_at <= :now::timestamptz
        AND purpose = :purpose::text
      ORDER BY next_attempt_at LIMIT :most::int FOR NO KEY UPDATE SKIP LOCKED) due
WHERE p.payment_id = due.payment_id
RETURNING p.payment_id, p.merchant_id, p.customer_id, p.amount_e10, p.attempts, p.provider_ref,
    (SELECT r.payer_ref FROM payers r
     WHERE r.owner_id = p.customer_id AND r.provider = :provider::text) AS payer_ref;

-- name: payer_of_payment
-- Whose account a payment moves.
-- args: payment_id text
SELECT customer_id FROM payments WHERE payment_id = :payment_id::text;

-- name: lock_payment
-- A payment, to be moved. The customer's account is locked before.
-- args: payment_id text
SELECT * FROM payments WHERE payment_id = :payment_id::text FOR NO KEY UPDATE;

-- name: set_grant
-- The credit that a payment gave, later than it was made.
-- args: payment_id text, grant_id text
UPDATE payments SET grant_id = :grant_id::text WHERE payment_id = :payment_id::text;

-- name: settle_payment
-- The payment is made.
-- args: payment_id text, ref text, grant_id text, subscription_id text, now timestamptz
UPDATE payments
SET status = 'succeeded', provider_ref = coalesce(:ref::text, provider_ref),
    grant_id = :grant_id::text, subscription_id = coalesce(:subscription_id::text, subscription_id),
    settled_at = :now::timestamptz, next_attempt_at = NULL, look_at = NULL, error_code = NULL,
    error_message = NULL
WHERE payment_id = :payment_id::text;

-- name: refuse_payment
-- The payment was declined; when it may be tried again. One that waits for its payer, and that
-- nobody asks for again, goes on being looked up.
-- args: payment_id text, status text, ref text, code text, message text, next_at timestamptz
UPDATE payments
SET status = :status::text, provider_ref = coalesce(:ref::text, provider_ref),
    attempts = attempts + 1, error_code = :code::text, error_message = :message::text,
    next_attempt_at = :next_at::timestamptz,
    look_at = CASE WHEN :status::text = 'requires_action' AND :next_at::timestamptz IS NULL
                   THEN look_at END
WHERE payment_id = :payment_id::text;

-- name: wait_for_provider
-- The provider will tell us (or the operator does): do not ask again, but look it up in time.
-- args: payment_id text, ref text, look_at timestamptz
UPDATE payments
SET status = 'pending', next_attempt_at = NULL, provider_ref = coalesce(:ref::text, provider_ref),
    look_at = :look_at::timestamptz, looks = 0
WHERE payment_id = :payment_id::text AND status IN ('pending', 'requires_action');

-- name: drop_open
-- Nobody is to be asked any more to pay for this subscription. Money that comes all the same counts;
-- what the provider was asked for is looked up when its answer must be there, to end it.
-- args: subscription_id text, purposes text[], now timestamptz
UPDATE payments
SET status = 'cancelled', next_attempt_at = NULL, settled_at = :now::timestamptz,
    look_at = CASE WHEN provider <> '' THEN :now::timestamptz + interval '2 minutes' END
WHERE subscription_id = :subscription_id::text AND status IN ('pending', 'requires_action')
  AND purpose = ANY(:purposes::text[]);

-- name: declines
-- How often top-ups were declined since the last that succeeded.
-- args: subscription_id text
SELECT coalesce(sum(attempts), 0)::int FROM payments
WHERE subscription_id = :subscription_id::text AND purpose = 'top_up'
  AND seq > coalesce((SELECT max(seq) FROM payments
                      WHERE subscription_id = :subscription_id::text AND purpose = 'top_up'
                        AND status = 'succeeded'), 0);

-- name: bundle_terms
-- What a bundle gives, and until when, under the plan that sells it.
-- args: credit_bundle_id text, customer_id text
SELECT b.credit_e10, p.bundle_rollover_type, s.cycle_end_at
FROM credit_bundles b JOIN plans p USING (plan_id)
LEFT JOIN subscriptions s ON s.customer_id = :customer_id::text AND s.status = 'active'
WHERE b.credit_bundle_id = :credit_bundle_id::text;

-- name: find_payment
-- A payment of a merchant.
-- args: merchant_id text, payment_id text
SELECT * FROM payments
WHERE merchant_id = :merchant_id::text AND payment_id = :payment_id::text;

-- name: list_payments
-- A merchant's payments behind a place in the list, newest first.
-- args: merchant_id text, customer_id text, before_at timestamptz, before_id text, most int
SELECT * FROM payments
WHERE merchant_id = :merchant_id::text
  AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
  AND (created_at, payment_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, payment_id DESC LIMIT :most::int;
