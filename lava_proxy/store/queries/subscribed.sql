-- name: list_subscriptions
-- A merchant's subscriptions behind a place in the list, newest first, with plan, credit and
-- customer; a NULL filter lets all pass.
-- args: merchant_id text, customer_id text, status text, before_at timestamptz, before_id text,
--   most int
SELECT s.subscription_id, s.customer_id, s.plan_id, s.status, s.top_up_bundle_id, s.started_at,
       s.cancelled_at, s.cycle_start_at, s.cycle_end_at, s.pending_type, s.pending_plan_id,
       p.name, p.period_amount_e10, p.included_credit_e10, p.billing_interval, p.rollover_type,
       p.bundle_rollover_type, n.name AS next_name, n.period_amount_e10 AS next_amount_e10,
       n.included_credit_e10 AS next_credit_e10, c.phone, c.email, c.first_name, c.last_name,
       (coalesce(g.cycle_e10, 0) + coalesce(g.bundle_e10, 0) - a.debt_e10)::bigint AS total_e10,
       coalesce(g.cycle_e10, 0)::bigint AS cycle_e10,
       coalesce(g.bundle_e10, 0)::bigint AS bundle_e10
FROM (
    SELECT * FROM subscriptions
    WHERE merchant_id = :merchant_id::text
      AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
      AND (:status::text IS NULL OR status = :status::text)
      AND (started_at, subscription_id) < (:before_at::timestamptz, :before_id::text)
    ORDER BY started_at DESC, subscription_id DESC LIMIT :most::int
) s
JOIN plans p ON p.plan_id = s.plan_id
LEFT JOIN plans n ON n.plan_id = s.pending_plan_id
JOIN customers c ON c.customer_id = s.customer_id
JOIN accounts a ON a.owner_id = s.customer_id
LEFT JOIN LATERAL (
    SELECT sum(left_e10) FILTER (WHERE kind = 'cycle')::bigint AS cycle_e10,
           sum(left_e10) FILTER (WHERE kind <> 'cycle')::bigint AS bundle_e10
    FROM (SELECT kind, leased_e10 + CASE WHEN expires_at <= now() THEN 0 ELSE available_e10 END
                       AS left_e10
          FROM credit_grants
          WHERE owner_id = s.customer_id AND (available_e10 > 0 OR leased_e10 > 0)) AS open_grants
) g ON true
ORDER BY s.started_at DESC, s.subscription_id DESC;
