-- name: insert_customer
-- Adds a customer; nothing comes back when the merchant's reference is taken.
-- args: customer_id text, merchant_id text, reference_id text, phone text, email text,
--   first_name text, last_name text, metadata jsonb, created_at timestamptz
INSERT INTO customers (customer_id, merchant_id, reference_id, phone, email, first_name, last_name,
                       metadata, created_at)
VALUES (:customer_id::text, :merchant_id::text, :reference_id::text, :phone::text, :email::text,
        :first_name::text, :last_name::text, :metadata::jsonb, :created_at::timestamptz)
ON CONFLICT (merchant_id, reference_id) WHERE deleted_at IS NULL DO NOTHING
RETURNING *;

-- name: customer
-- One customer by our id or the merchant's own.
-- args: merchant_id text, customer text
SELECT * FROM customers
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (customer_id = :customer::text OR reference_id = :customer::text)
ORDER BY customer_id <> :customer::text LIMIT 1;

-- name: customers_page
-- A page of customers, newest first, from behind a cursor.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT * FROM customers
WHERE merchant_id = :merchant_id::text AND deleted_at IS NULL
  AND (created_at, customer_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, customer_id DESC LIMIT :most::int;
