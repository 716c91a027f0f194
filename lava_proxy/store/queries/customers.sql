-- name: create_customer
-- Makes a customer and its credit account; no row comes back when the reference is taken.
-- args: customer_id text, merchant_id text, reference_id text, phone text, email text,
--   first_name text, last_name text, metadata text, top_up_max bigint, created_at timestamptz
WITH made AS (
    INSERT INTO customers (customer_id, merchant_id, reference_id, phone, email, first_name,
                           last_name, metadata, top_up_max_e10, created_at)
    VALUES (:customer_id::text, :merchant_id::text, :reference_id::text, :phone::text,
            :email::text, :first_name::text, :last_name::text, :metadata::text::jsonb,
            :top_up_max::bigint, :created_at::timestamptz)
    ON CONFLICT (merchant_id, reference_id) WHERE deleted_at IS NULL DO NOTHING
    RETURNING *
), account AS (
    INSERT INTO accounts (owner_id, merchant_id) SELECT customer_id, merchant_id FROM made
)
SELECT customer_id, reference_id, phone, email, first_name, last_name,
       metadata::text AS metadata, top_up_max_e10, created_at
FROM made;

-- name: find_customer
-- A customer of a merchant by our id or by the merchant's own, with its subscription.
-- args: merchant_id text, customer text
SELECT c.customer_id, c.reference_id, c.phone, c.email, c.first_name, c.last_name,
       c.metadata::text AS metadata, c.top_up_max_e10, c.created_at, s.subscription_id,
       s.plan_id, s.status, p.name AS plan_name
FROM customers c
LEFT JOIN subscriptions s ON s.customer_id = c.customer_id AND s.status = 'active'
LEFT JOIN plans p ON p.plan_id = s.plan_id
WHERE c.merchant_id = :merchant_id::text AND c.deleted_at IS NULL
  AND (c.customer_id = :customer::text OR c.reference_id = :customer::text)
ORDER BY c.customer_id <> :customer::text LIMIT 1;

-- name: list_customers
-- A merchant's customers behind a place in the list, newest first, with their subscriptions.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT c.customer_id, c.reference_id, c.phone, c.email, c.first_name, c.last_name,
       c.metadata::text AS metadata, c.top_up_max_e10, c.created_at, s.subscription_id,
       s.plan_id, s.status, p.name AS plan_name
FROM customers c
LEFT JOIN subscriptions s ON s.customer_id = c.customer_id AND s.status = 'active'
LEFT JOIN plans p ON p.plan_id = s.plan_id
WHERE c.merchant_id = :merchant_id::text AND c.deleted_at IS NULL
  AND (c.created_at, c.customer_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY c.created_at DESC, c.customer_id DESC LIMIT :most::int;

-- name: update_customer
-- Changes what is set; a field that is not stays as it is. A reference that is taken fails.
-- args: merchant_id text, customer text, set_reference boolean, reference_id text, phone text,
--   email text, first_name text, last_name text, set_metadata boolean, metadata text,
--   set_top_up_max boolean, top_up_max bigint
UPDATE customers SET
    reference_id = CASE WHEN :set_reference::boolean THEN :reference_id::text ELSE reference_id END,
    phone = coalesce(:phone::text, phone),
    email = coalesce(:email::text, email),
    first_name = coalesce(:first_name::text, first_name),
    last_name = coalesce(:last_name::text, last_name),
    metadata = CASE WHEN :set_metadata::boolean THEN :metadata::text::jsonb ELSE metadata END,
    top_up_max_e10 = CASE WHEN :set_top_up_max::boolean THEN :top_up_max::bigint
                          ELSE top_up_max_e10 END
WHERE customer_id = (
    SELECT customer_id FROM customers
    WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
      AND (customer_id = :customer::text OR reference_id = :customer::text)
    ORDER BY customer_id <> :customer::text LIMIT 1)
RETURNING customer_id;

-- name: delete_customer
-- Ends a customer and its subscription; what was booked stays.
-- args: merchant_id text, customer text, now timestamptz
WITH gone AS (
    UPDATE customers SET deleted_at = :now::timestamptz
    WHERE customer_id = (
        SELECT customer_id FROM customers
        WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
          AND (customer_id = :customer::text OR reference_id = :customer::text)
        ORDER BY customer_id <> :customer::text LIMIT 1)
    RETURNING customer_id
), cancelled AS (
    UPDATE subscriptions s
    SET status = 'cancelled', cancelled_at = :now::timestamptz, pending_type = NULL,
        pending_plan_id = NULL, past_due_since = NULL
    FROM gone WHERE s.customer_id = gone.customer_id AND s.status = 'active'
)
SELECT customer_id FROM gone;
