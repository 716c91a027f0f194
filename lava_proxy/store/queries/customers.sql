-- name: create_customer
-- Makes a customer and its credit account; no row comes back when the reference is taken.
-- args: customer_id text, merchant_id text, reference_id text, phone text, email text,
--   first_name text, last_name text, metadata text, created_at timestamptz
WITH made AS (
    INSERT INTO customers (customer_id, merchant_id, reference_id, phone, email, first_name,
                           last_name, metadata, created_at)
    VALUES (:customer_id::text, :merchant_id::text, :reference_id::text, :phone::text,
            :email::text, :first_name::text, :last_name::text, :metadata::text::jsonb,
            :created_at::timestamptz)
    ON CONFLICT (merchant_id, reference_id) WHERE deleted_at IS NULL DO NOTHING
    RETURNING *
), account AS (
    INSERT INTO accounts (owner_id, merchant_id) SELECT customer_id, merchant_id FROM made
)
SELECT customer_id, reference_id, phone, email, first_name, last_name,
       metadata::text AS metadata, created_at
FROM made;

-- name: find_customer
-- A customer of a merchant by our id or by the merchant's own.
-- args: merchant_id text, customer text
SELECT customer_id, reference_id, phone, email, first_name, last_name,
       metadata::text AS metadata, created_at
FROM customers
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (customer_id = :customer::text OR reference_id = :customer::text)
ORDER BY customer_id <> :customer::text LIMIT 1;

-- name: list_customers
-- A merchant's customers behind a place in the list, newest first.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT customer_id, reference_id, phone, email, first_name, last_name,
       metadata::text AS metadata, created_at
FROM customers
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (created_at, customer_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, customer_id DESC LIMIT :most::int;
