-- name: subscription_due
-- Whether a customer's cycle is over. No lock: most are not.
-- args: customer_id text, now timestamptz
SELECT subscription_id FROM subscriptions
WHERE customer_id = :customer_id::text AND status = 'active'
  AND cycle_end_at <= :now::timestamptz AND past_due_since IS NULL;

-- name: lock_subscription
-- A customer's active subscription and the plan that its next cycle follows. The account is locked.
-- args: customer_id text
SELECT s.subscription_id, s.merchant_id, s.customer_id, s.plan_id, s.anchor_at, s.cycle_seq,
       s.cycle_start_at, s.cycle_end_at, s.pending_type, s.pending_payment_id, s.past_due_since,
       now_on.period_amount_e10 AS now_amount_e10, now_on.billing_interval AS now_interval,
       p.plan_id AS next_plan_id, p.name, p.period_amount_e10, p.included_credit_e10,
       p.billing_interval, p.rollover_type, p.default_top_up_bundle_id
FROM subscriptions s
JOIN plans now_on ON now_on.plan_id = s.plan_id
JOIN plans p ON p.plan_id = coalesce(s.pending_plan_id, s.plan_id)
WHERE s.customer_id = :customer_id::text AND s.status = 'active'
FOR NO KEY UPDATE OF s;

-- name: plan_terms
-- What a customer's subscription takes from its plan, of the same merchant; no row where one of them
-- is deleted, and neither will be before this transaction ends.
-- args: plan_id text, customer_id text
SELECT p.plan_id, p.merchant_id, p.period_amount_e10, p.included_credit_e10, p.billing_interval,
       p.rollover_type, p.default_top_up_bundle_id
FROM plans p JOIN customers c USING (merchant_id)
WHERE p.plan_id = :plan_id::text AND p.deleted_at IS NULL
  AND c.customer_id = :customer_id::text AND c.deleted_at IS NULL
FOR KEY SHARE OF p FOR SHARE OF c;

-- name: insert_subscription
-- Opens a subscription with its first cycle.
-- args: subscription_id text, merchant_id text, customer_id text, plan_id text,
--   top_up_bundle_id text, now timestamptz, ends_at timestamptz
INSERT INTO subscriptions (subscription_id, merchant_id, customer_id, plan_id, status,
                           top_up_bundle_id, started_at, anchor_at, cycle_seq, cycle_start_at,
                           cycle_end_at)
VALUES (:subscription_id::text, :merchant_id::text, :customer_id::text, :plan_id::text, 'active',
        :top_up_bundle_id::text, :now::timestamptz, :now::timestamptz, 1, :now::timestamptz,
        :ends_at::timestamptz);

-- name: insert_cycle
-- Claims a cycle; no row comes back when somebody has it.
-- args: subscription_id text, seq int, plan_id text, starts_at timestamptz, ends_at timestamptz,
--   grant_id text, payment_id text
INSERT INTO cycles (subscription_id, seq, plan_id, starts_at, ends_at, grant_id, payment_id)
VALUES (:subscription_id::text, :seq::int, :plan_id::text, :starts_at::timestamptz,
        :ends_at::timestamptz, :grant_id::text, :payment_id::text)
ON CONFLICT DO NOTHING RETURNING seq;

-- name: cycle_granted
-- Names the grant of a cycle.
-- args: subscription_id text, seq int, grant_id text
UPDATE cycles SET grant_id = :grant_id::text
WHERE subscription_id = :subscription_id::text AND seq = :seq::int;

-- name: move_subscription
-- Puts a subscription into its next cycle; a change of plan takes the new plan's top-up.
-- args: subscription_id text, plan_id text, top_up_bundle_id text, anchor_at timestamptz, seq int,
--   starts_at timestamptz, ends_at timestamptz
UPDATE subscriptions
SET top_up_bundle_id = CASE WHEN plan_id = :plan_id::text THEN top_up_bundle_id
                            ELSE :top_up_bundle_id::text END,
    plan_id = :plan_id::text, anchor_at = :anchor_at::timestamptz, cycle_seq = :seq::int,
    cycle_start_at = :starts_at::timestamptz, cycle_end_at = :ends_at::timestamptz,
    pending_type = NULL, pending_plan_id = NULL, pending_payment_id = NULL, past_due_since = NULL
WHERE subscription_id = :subscription_id::text;

-- name: end_subscription
-- Cancels a customer's subscription now: this one, or whichever they are on; answers which, and the
-- payment that a change was waiting with.
-- args: customer_id text, subscription_id text, at timestamptz
UPDATE subscriptions s
SET status = 'cancelled', cancelled_at = :at::timestamptz, pending_type = NULL,
    pending_plan_id = NULL, pending_payment_id = NULL
FROM (SELECT subscription_id, pending_payment_id FROM subscriptions
      WHERE customer_id = :customer_id::text AND status = 'active'
        AND (:subscription_id::text IS NULL OR subscription_id = :subscription_id::text)) was
WHERE s.subscription_id = was.subscription_id
RETURNING was.subscription_id, was.pending_payment_id;

-- name: free_plan_after
-- The plan that a customer goes on who leaves this subscription: the merchant's Free plan, unless
-- they were on it. No row, or NULL, where there is none.
-- args: subscription_id text
SELECT m.free_plan_id
FROM subscriptions s JOIN merchants m USING (merchant_id)
WHERE s.subscription_id = :subscription_id::text AND m.free_plan_id <> s.plan_id;

-- name: end_cycle_credit
-- Cycle credit of an account ends with its cycle, but for what rolls over if that is `kept`; what
-- workers hold ends when it comes back.
-- args: customer_id text, at timestamptz, kept boolean
UPDATE credit_grants SET expires_at = :at::timestamptz
WHERE owner_id = :customer_id::text AND kind = 'cycle'
  AND (available_e10 > 0 OR leased_e10 > 0)
  AND (expires_at > :at::timestamptz OR (expires_at IS NULL AND NOT :kept::boolean));

-- name: past_due
-- The next cycle is to be paid for; it grants nothing yet.
-- args: subscription_id text, since timestamptz
UPDATE subscriptions SET past_due_since = :since::timestamptz
WHERE subscription_id = :subscription_id::text AND past_due_since IS NULL;

-- name: pend
-- What happens at the cycle's end, and the payment that paid for it already; answers the payment of
-- the change in whose place this is.
-- args: subscription_id text, pending_type text, pending_plan_id text, payment_id text
UPDATE subscriptions s
SET pending_type = :pending_type::text, pending_plan_id = :pending_plan_id::text,
    pending_payment_id = :payment_id::text
FROM (SELECT subscription_id, pending_payment_id FROM subscriptions
      WHERE subscription_id = :subscription_id::text) was
WHERE s.subscription_id = was.subscription_id
RETURNING was.pending_payment_id;

-- name: due_customers
-- Customers whose cycle is over and was not looked at yet.
-- args: now timestamptz, most int
SELECT customer_id FROM subscriptions
WHERE status = 'active' AND cycle_end_at <= :now::timestamptz AND past_due_since IS NULL
ORDER BY cycle_end_at LIMIT :most::int;

-- name: lapsed
-- Subscriptions, all or a customer's, whose next cycle was asked to be paid for before that, and is
-- not; the longest first.
-- args: customer_id text, asked_before timestamptz, most int
SELECT s.customer_id, s.subscription_id
FROM subscriptions s
JOIN payments p ON p.subscription_id = s.subscription_id AND p.purpose = 'renewal'
 AND p.seq = s.cycle_seq + 1
WHERE s.status = 'active' AND s.past_due_since <= :asked_before::timestamptz
  AND p.created_at <= :asked_before::timestamptz AND p.status <> 'succeeded'
  AND (:customer_id::text IS NULL OR s.customer_id = :customer_id::text)
ORDER BY s.past_due_since LIMIT :most::int;

-- name: customer_of
-- Whose subscription it is.
-- args: subscription_id text, merchant_id text
SELECT customer_id FROM subscriptions
WHERE subscription_id = :subscription_id::text AND merchant_id = :merchant_id::text;

-- name: set_top_up
-- Sets a subscription's auto top-up to a bundle of its own plan; no row where it is not one.
-- args: subscription_id text, merchant_id text, bundle_id text
UPDATE subscriptions s SET top_up_bundle_id = :bundle_id::text
WHERE s.subscription_id = :subscription_id::text AND s.merchant_id = :merchant_id::text
  AND s.status = 'active'
  AND (:bundle_id::text IS NULL OR EXISTS (
      SELECT FROM credit_bundles b WHERE b.credit_bundle_id = :bundle_id::text
        AND b.plan_id = s.plan_id AND b.deleted_at IS NULL))
RETURNING s.subscription_id;
