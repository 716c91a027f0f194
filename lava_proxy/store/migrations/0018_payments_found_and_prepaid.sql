-- Payments whose end nobody told us: they are looked up at the provider.

ALTER TABLE payments
    -- The provider's own page, where there is one: what was paid there is asked of it.
    ADD COLUMN page_ref text,
    -- When to look it up next; NULL: its end is known, or a worker asks for it anyway.
    ADD COLUMN look_at  timestamptz,
    ADD COLUMN looks    int NOT NULL DEFAULT 0;
CREATE INDEX payments_to_look_up ON payments (look_at) WHERE look_at IS NOT NULL;

-- What was begun before this and is still open: found at the provider without its page's id.
UPDATE payments SET look_at = now()
WHERE (status IN ('pending', 'requires_action') AND next_attempt_at IS NULL)
   OR (status = 'pending' AND purpose IN ('subscription', 'bundle', 'wallet'));

-- A cheaper plan that was paid for while a dearer one runs begins with the end of the cycle: until
-- then the subscription keeps the payment, which that cycle is not charged for again.

ALTER TABLE subscriptions ADD COLUMN pending_payment_id text REFERENCES payments;

CREATE OR REPLACE VIEW shown_subscriptions AS
SELECT s.subscription_id, s.merchant_id, s.customer_id, s.plan_id, s.status,
       b.credit_bundle_id AS top_up_bundle_id, s.started_at, s.cancelled_at, s.cycle_start_at,
       s.cycle_end_at, s.pending_type, s.pending_plan_id, p.name, p.period_amount_e10,
       p.included_credit_e10, p.billing_interval, p.rollover_type, p.bundle_rollover_type,
       n.name AS next_name, n.period_amount_e10 AS next_amount_e10,
       n.included_credit_e10 AS next_credit_e10, c.phone, c.email, c.first_name, c.last_name,
       (coalesce(g.cycle_e10, 0) + coalesce(g.bundle_e10, 0) - a.debt_e10)::bigint AS total_e10,
       coalesce(g.cycle_e10, 0)::bigint AS cycle_e10,
       coalesce(g.bundle_e10, 0)::bigint AS bundle_e10,
       s.pending_payment_id
FROM subscriptions s
JOIN plans p ON p.plan_id = s.plan_id
LEFT JOIN plans n ON n.plan_id = s.pending_plan_id
LEFT JOIN credit_bundles b ON b.credit_bundle_id = s.top_up_bundle_id AND b.deleted_at IS NULL
JOIN customers c ON c.customer_id = s.customer_id
JOIN accounts a ON a.owner_id = s.customer_id
LEFT JOIN LATERAL (
    SELECT sum(left_e10) FILTER (WHERE kind = 'cycle')::bigint AS cycle_e10,
           sum(left_e10) FILTER (WHERE kind <> 'cycle')::bigint AS bundle_e10
    FROM (SELECT kind, leased_e10 + CASE WHEN expires_at <= now() THEN 0 ELSE available_e10 END
                       AS left_e10
          FROM credit_grants
          WHERE owner_id = s.customer_id AND (available_e10 > 0 OR leased_e10 > 0)) AS open_grants
) g ON true;
