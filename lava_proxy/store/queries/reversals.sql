-- name: one_at_a_time
-- Until this transaction ends, nobody else notes what goes back of an unknown payment, or makes the
-- payment of this id of the provider's.
-- args: provider text, payment_ref text
SELECT pg_advisory_xact_lock(
    hashtextextended('lava payment ' || :provider::text || ' ' || :payment_ref::text, 0))::text;

-- name: note_reversal
-- How a refund or dispute stands. What is over stays over, amounts do not shrink.
-- args: provider text, ref text, payment_ref text, kind text, amount bigint, over bool
INSERT INTO payment_reversals AS r (provider, reversal_ref, payment_ref, kind, amount_e10, over)
VALUES (:provider::text, :ref::text, :payment_ref::text, :kind::text, :amount::bigint, :over::bool)
ON CONFLICT (provider, reversal_ref) DO UPDATE
SET amount_e10 = greatest(r.amount_e10, excluded.amount_e10), over = r.over OR excluded.over;

-- name: reversals_of
-- All that goes back of a payment, by the provider's id of it.
-- args: provider text, payment_ref text
SELECT kind, amount_e10, over FROM payment_reversals
WHERE provider = :provider::text AND payment_ref = :payment_ref::text;

-- name: credit_of_payment
-- The credit that a payment gave; the account is locked.
-- args: payment_id text
SELECT g.grant_id, g.kind, g.amount_e10, g.available_e10, g.leased_e10, g.expired_e10, g.expires_at
FROM payments p
JOIN credit_grants g ON g.grant_id = coalesce(
    p.grant_id,
    (SELECT c.grant_id FROM cycles c
     WHERE c.subscription_id = p.subscription_id AND c.payment_id = p.payment_id))
WHERE p.payment_id = :payment_id::text;

-- name: move_reversed
-- How far a payment is undone.
-- args: payment_id text, refunded bigint, reversed bigint, taken bigint, disputed_at timestamptz
UPDATE payments
SET refunded_e10 = :refunded::bigint, reversed_e10 = :reversed::bigint,
    taken_e10 = :taken::bigint,
    disputed_at = CASE WHEN :disputed_at::timestamptz IS NULL THEN NULL
                       ELSE coalesce(disputed_at, :disputed_at::timestamptz) END
WHERE payment_id = :payment_id::text;

-- name: stop_top_ups
-- Nothing is bought by itself any more for a customer whose money went back.
-- args: customer_id text
UPDATE subscriptions SET top_up_bundle_id = NULL
WHERE customer_id = :customer_id::text AND status = 'active'
RETURNING subscription_id;
