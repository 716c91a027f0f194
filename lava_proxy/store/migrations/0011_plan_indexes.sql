-- Who is about to change to a plan (it cannot be deleted then), and what a customer paid this month.
CREATE INDEX subscriptions_to_plan ON subscriptions (pending_plan_id)
    WHERE pending_plan_id IS NOT NULL;
CREATE INDEX payments_by_customer ON payments (customer_id, created_at);
