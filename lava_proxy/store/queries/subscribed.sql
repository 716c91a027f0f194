-- name: list_subscriptions
-- A merchant's subscriptions behind a place in the list, newest first; a NULL filter lets all pass.
-- args: merchant_id text, customer_id text, status text, before_at timestamptz, before_id text,
--   most int
SELECT v.* FROM (
    SELECT subscription_id FROM subscriptions
    WHERE merchant_id = :merchant_id::text
      AND (:customer_id::text IS NULL OR customer_id = :customer_id::text)
      AND (:status::text IS NULL OR status = :status::text)
      AND (started_at, subscription_id) < (:before_at::timestamptz, :before_id::text)
    ORDER BY started_at DESC, subscription_id DESC LIMIT :most::int
) s
JOIN shown_subscriptions v USING (subscription_id)
ORDER BY v.started_at DESC, v.subscription_id DESC;

-- name: active_of
-- The subscriptions that these customers are on.
-- args: customer_ids text[]
SELECT * FROM shown_subscriptions
WHERE customer_id = ANY(:customer_ids::text[]) AND status = 'active';
