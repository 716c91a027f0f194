-- name: insert_spend_key
-- Keeps a new spend key: its hash and its rules.
-- args: spend_key_id text, merchant_id text, wallet_id text, name text, key_hash bytea,
--   key_preview text, status text, request_shape text, allowed_models text[],
--   allowed_providers text[], spend_limit bigint, spend_cycle text, request_limit bigint,
--   request_cycle text, rpm int, burst int, expires_at timestamptz, created_at timestamptz
INSERT INTO spend_keys
    (spend_key_id, merchant_id, wallet_id, name, key_hash, key_preview, status, request_shape,
     allowed_models, allowed_providers, spend_limit_e10, spend_cycle, request_limit, request_cycle,
     rate_rpm, rate_burst, expires_at, created_at)
VALUES (:spend_key_id::text, :merchant_id::text, :wallet_id::text, :name::text, :key_hash::bytea,
        :key_preview::text, :status::text, :request_shape::text, :allowed_models::text[],
        :allowed_providers::text[], :spend_limit::bigint, :spend_cycle::text,
        :request_limit::bigint, :request_cycle::text, :rpm::int, :burst::int,
        :expires_at::timestamptz, :created_at::timestamptz);

-- name: spend_key_by_id
-- A merchant's spend key that is not revoked.
-- args: merchant_id text, spend_key_id text
SELECT k.spend_key_id, k.merchant_id, k.wallet_id, k.name, k.key_preview, k.status,
       k.request_shape, k.allowed_models, k.allowed_providers, k.spend_limit_e10, k.spend_cycle,
       k.request_limit, k.request_cycle, k.rate_rpm, k.rate_burst, k.expires_at, k.created_at,
       u.last_used_at
FROM spend_keys k LEFT JOIN spend_key_uses u USING (spend_key_id)
WHERE k.merchant_id = :merchant_id::text AND k.spend_key_id = :spend_key_id::text
  AND k.deleted_at IS NULL;

-- name: lock_spend_key
-- Keeps a spend key as it is until the transaction ends; no row when it is not in force.
-- args: merchant_id text, spend_key_id text
SELECT spend_key_id FROM spend_keys
WHERE merchant_id = :merchant_id::text AND spend_key_id = :spend_key_id::text
  AND deleted_at IS NULL
FOR NO KEY UPDATE;

-- name: list_spend_keys
-- A merchant's spend keys that are not revoked, behind a place in the list, newest first.
-- args: merchant_id text, before_at timestamptz, before_id text, most int
SELECT k.spend_key_id, k.merchant_id, k.wallet_id, k.name, k.key_preview, k.status,
       k.request_shape, k.allowed_models, k.allowed_providers, k.spend_limit_e10, k.spend_cycle,
       k.request_limit, k.request_cycle, k.rate_rpm, k.rate_burst, k.expires_at, k.created_at,
       u.last_used_at
FROM spend_keys k LEFT JOIN spend_key_uses u USING (spend_key_id)
WHERE k.merchant_id = :merchant_id::text AND k.deleted_at IS NULL
  AND (k.created_at, k.spend_key_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY k.created_at DESC, k.spend_key_id DESC LIMIT :most::int;

-- name: change_spend_key
-- Writes a spend key's rules anew.
-- args: spend_key_id text, name text, status text, request_shape text, allowed_models text[],
--   allowed_providers text[], spend_limit bigint, spend_cycle text, request_limit bigint,
--   request_cycle text, rpm int, burst int, expires_at timestamptz
UPDATE spend_keys
SET name = :name::text, status = :status::text, request_shape = :request_shape::text,
    allowed_models = :allowed_models::text[], allowed_providers = :allowed_providers::text[],
    spend_limit_e10 = :spend_limit::bigint, spend_cycle = :spend_cycle::text,
    request_limit = :request_limit::bigint, request_cycle = :request_cycle::text,
    rate_rpm = :rpm::int, rate_burst = :burst::int, expires_at = :expires_at::timestamptz
WHERE spend_key_id = :spend_key_id::text;

-- name: rotate_spend_key
-- Puts another key in the place of the present one, which ends with that.
-- args: spend_key_id text, key_hash bytea, key_preview text
UPDATE spend_keys SET key_hash = :key_hash::bytea, key_preview = :key_preview::text
WHERE spend_key_id = :spend_key_id::text;

-- name: revoke_spend_key
-- Ends a spend key; no row comes back when it was not in force.
-- args: merchant_id text, spend_key_id text
UPDATE spend_keys SET deleted_at = now()
WHERE merchant_id = :merchant_id::text AND spend_key_id = :spend_key_id::text
  AND deleted_at IS NULL
RETURNING spend_key_id;

-- name: note_uses
-- Remembers when keys were used last; an older time than the one that is known changes nothing.
-- args: spend_key_ids text[], used_ats timestamptz[]
INSERT INTO spend_key_uses AS u (spend_key_id, last_used_at)
SELECT k.spend_key_id, t.used_at
FROM unnest(:spend_key_ids::text[], :used_ats::timestamptz[]) AS t(spend_key_id, used_at)
JOIN spend_keys k USING (spend_key_id)
ORDER BY k.spend_key_id
ON CONFLICT (spend_key_id) DO UPDATE
SET last_used_at = greatest(u.last_used_at, excluded.last_used_at);
