-- name: claim_request_ids
-- Claims request ids for ever, in one order, so that two batches with the same ids wait for each
-- other instead of deadlocking. `claims` is a JSON array of `most` arrays: merchant, request id, when,
-- and the hash of what was reported (hexadecimal). Answers those that were new as a JSON array of
-- arrays; null where all were, as nearly always: to read as many rows costs more than to claim them.
-- args: claims text, most int
WITH new AS (
    INSERT INTO request_ids (merchant_id, request_id, created_at, content_hash)
    SELECT c->>0, c->>1, (c->>2)::timestamptz, decode(c->>3, 'hex')
    FROM jsonb_array_elements(:claims::text::jsonb) WITH ORDINALITY AS t(c, place)
    ORDER BY c->>0, c->>1, place
    ON CONFLICT DO NOTHING
    RETURNING merchant_id, request_id
)
SELECT CASE WHEN count(*) < :most::int
    THEN coalesce(json_agg(json_build_array(merchant_id, request_id)), '[]') END AS new
FROM new;

-- name: claim_objects
-- Locks the rows of objects whose usage is to be booked, in one order, and says what was booked of
-- each; whoever comes second waits, and sees what the first has booked.
-- args: providers text[], object_ids text[]
INSERT INTO metered_objects AS m (provider, object_id, final)
SELECT provider, object_id, false
FROM unnest(:providers::text[], :object_ids::text[]) AS t(provider, object_id)
ORDER BY provider, object_id
ON CONFLICT (provider, object_id) DO UPDATE SET final = m.final
RETURNING provider, object_id, final, booked, unclaimed, kept, over;

-- name: keep_objects
-- Notes what is booked of objects by now: a JSON array.
-- args: rows text
UPDATE metered_objects m
SET final = t.final, booked = t.booked, unclaimed = t.unclaimed, kept = t.kept, over = t.over
FROM json_to_recordset(:rows::text::json)
    AS t(provider text, object_id text, final boolean, booked bigint[], unclaimed bigint[],
         kept boolean, over boolean)
WHERE m.provider = t.provider AND m.object_id = t.object_id;

-- name: lock_accounts
-- Locks the accounts of a batch in one order, which is what prevents deadlocks.
-- args: owner_ids text[]
SELECT owner_id, merchant_id, debt_e10, overdraft_leased_e10
FROM accounts WHERE owner_id = ANY(:owner_ids::text[])
ORDER BY owner_id FOR NO KEY UPDATE;

-- name: read_accounts
-- What a batch is charged by, read under its accounts' locks: units used so far in each tier scope,
-- and what is left of the holders' leases on these accounts, in burn order; and whether the merchants
-- have webhooks, which may want to be told. In one row, because a statement costs the gateway as
-- much as several rows of a batch; as JSON arrays of arrays, because the driver looks up what a
-- record is.
-- args: meter_owners text[], meter_ids text[], cycles text[], owner_ids text[], holder_ids text[],
--   merchant_ids text[]
SELECT coalesce((
    SELECT json_agg(json_build_array(c.owner_id, c.meter_id, c.cycle, c.units))
    FROM unnest(:meter_owners::text[], :meter_ids::text[], :cycles::text[])
        AS k(owner_id, meter_id, cycle)
    JOIN usage_counters c USING (owner_id, meter_id, cycle)
), '[]') AS counters, coalesce((
    SELECT json_agg(
        json_build_array(l.owner_id, l.holder_id, p.lease_id, p.seq, p.grant_id, p.left_e10)
        ORDER BY l.owner_id, l.created_at, p.lease_id, p.seq)
    FROM leases l JOIN lease_parts p USING (lease_id)
    WHERE l.closed_at IS NULL AND l.owner_id = ANY(:owner_ids::text[])
      AND l.holder_id = ANY(:holder_ids::text[]) AND p.left_e10 > 0
), '[]') AS parts, EXISTS (
    SELECT FROM webhooks WHERE merchant_id = ANY(:merchant_ids::text[])
) AS heard;

-- name: available_grants
-- Grants with credit that no worker holds, in burn order: cycle first, then the soonest-expiring,
-- then the oldest. Expired ones are left out.
-- args: owner_ids text[], now timestamptz
SELECT owner_id, grant_id, available_e10
FROM credit_grants
WHERE owner_id = ANY(:owner_ids::text[]) AND available_e10 > 0
  AND (expires_at IS NULL OR expires_at > :now::timestamptz)
ORDER BY owner_id, (kind <> 'cycle'), expires_at NULLS LAST, created_at, grant_id;

-- name: book
-- Books the rows of a batch: the requests, what they add to their quarters of an hour and to the cost
-- of managed keys, and their ledger transactions (what the customer paid, what the provider costs);
-- what the batch adds to tier scopes, and takes from shares of leases, with lease and grant kept in
-- step.
-- `rows` is a JSON array of arrays, with the values of a row by place, as store/lines.py has them.
-- One argument instead of forty arrays, because encoding those cost the gateway more CPU than all
-- else in a batch; places instead of names, because reading names cost both sides a third more. The
-- rest is derived here, where it only has to be copied. A request id of ours is unique, so it names
-- the transaction; a reported one is unique per merchant.
-- args: rows text, now timestamptz,
--   owner_ids text[], meter_ids text[], cycles text[], units bigint[],
--   lease_ids text[], seqs int[], amounts bigint[]
WITH booked AS (
    INSERT INTO requests
        (merchant_id, request_id, created_at, customer_id, meter_id, cycle,
         provider, provider_key_type, model, endpoint, response_id,
         status, outcome, usage_source, stream,
         input_tokens, output_tokens,
         cache_read_tokens, cache_write_tokens, reasoning_tokens,
         input_characters, output_characters, input_ms, output_ms,
         units, input_cost_e10, output_cost_e10, cost_e10, charge_e10,
         rate_type, tier_type, price_version,
         duration_ms, first_byte_ms, completed_at,
         breakdown, metadata, flags)
    SELECT r->>0, r->>1, (r->>2)::timestamptz, r->>3, r->>4, r->>5,
           r->>6, r->>7, r->>8, r->>9, r->>10,
           r->>11, r->>12, r->>13, (r->>14)::boolean,
           (r->>15)::bigint, (r->>16)::bigint,
           (r->>17)::bigint, (r->>18)::bigint, (r->>19)::bigint,
           (r->>20)::bigint, (r->>21)::bigint, (r->>22)::bigint, (r->>23)::bigint,
           (r->>24)::bigint, (r->>25)::bigint, (r->>26)::bigint, (r->>27)::bigint, (r->>28)::bigint,
           r->>29, r->>30, r->>31,
           (r->>32)::bigint, (r->>33)::bigint, (r->>34)::timestamptz,
           r->35, nullif(r->36, 'null'), ARRAY(SELECT jsonb_array_elements_text(r->37))
    FROM jsonb_array_elements(:rows::text::jsonb) AS r
    RETURNING *
), rolled AS (
    INSERT INTO usage_rollups AS u
        (merchant_id, bucket, customer_id, meter_id, requests, input_tokens, output_tokens,
         input_characters, output_characters, input_ms, output_ms, cost_e10, charge_e10,
         managed_cost_e10)
    SELECT merchant_id, date_bin('15 minutes', created_at, 'epoch'), coalesce(customer_id, ''),
           coalesce(meter_id, ''), count(*), sum(input_tokens)::bigint, sum(output_tokens)::bigint,
           sum(input_characters)::bigint, sum(output_characters)::bigint, sum(input_ms)::bigint,
           sum(output_ms)::bigint, sum(cost_e10)::bigint, sum(charge_e10)::bigint,
           coalesce(sum(cost_e10) FILTER (WHERE provider_key_type = 'managed'), 0)::bigint
    FROM booked GROUP BY 1, 2, 3, 4
    ON CONFLICT (merchant_id, bucket, customer_id, meter_id) DO UPDATE SET
        requests = u.requests + excluded.requests,
        input_tokens = u.input_tokens + excluded.input_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens,
        input_characters = u.input_characters + excluded.input_characters,
        output_characters = u.output_characters + excluded.output_characters,
        input_ms = u.input_ms + excluded.input_ms,
        output_ms = u.output_ms + excluded.output_ms,
        cost_e10 = u.cost_e10 + excluded.cost_e10,
        charge_e10 = u.charge_e10 + excluded.charge_e10,
        managed_cost_e10 = u.managed_cost_e10 + excluded.managed_cost_e10
), walleted AS (
    INSERT INTO wallet_costs AS w (merchant_id, slot, cost_e10)
    SELECT merchant_id, pg_backend_pid() % 16, sum(cost_e10)::bigint
    FROM booked WHERE provider_key_type = 'managed' AND cost_e10 <> 0
    GROUP BY merchant_id ORDER BY merchant_id
    ON CONFLICT (merchant_id, slot) DO UPDATE SET cost_e10 = w.cost_e10 + excluded.cost_e10
), counted AS (
    INSERT INTO usage_counters AS c (owner_id, meter_id, cycle, units)
    SELECT * FROM unnest(:owner_ids::text[], :meter_ids::text[], :cycles::text[], :units::bigint[])
    ON CONFLICT (owner_id, meter_id, cycle) DO UPDATE SET units = c.units + excluded.units
), taken AS (
    UPDATE lease_parts p SET left_e10 = p.left_e10 - t.amount
    FROM unnest(:lease_ids::text[], :seqs::int[], :amounts::bigint[]) AS t(lease_id, seq, amount)
    WHERE p.lease_id = t.lease_id AND p.seq = t.seq
    RETURNING p.lease_id, p.grant_id, t.amount
), per_lease AS (
    UPDATE leases l SET spent_e10 = l.spent_e10 + s.amount
    FROM (SELECT lease_id, sum(amount)::bigint AS amount FROM taken GROUP BY lease_id) s
    WHERE l.lease_id = s.lease_id
), per_grant AS (
    UPDATE credit_grants g
    SET leased_e10 = g.leased_e10 - s.amount, spent_e10 = g.spent_e10 + s.amount
    FROM (SELECT grant_id, sum(amount)::bigint AS amount FROM taken
          WHERE grant_id IS NOT NULL GROUP BY grant_id) s
    WHERE g.grant_id = s.grant_id
)
INSERT INTO ledger_entries
    (transaction_id, merchant_id, account, amount_e10, kind, request_id, customer_id, created_at)
SELECT CASE b.usage_source WHEN 'reported' THEN 'txn_' || md5(b.merchant_id || ' ' || b.request_id)
            ELSE 'txn_' || substr(b.request_id, length('req_') + 1) END,
       b.merchant_id, e.account, e.amount_e10, e.kind, b.request_id, b.customer_id,
       :now::timestamptz
FROM booked b
CROSS JOIN LATERAL (VALUES
    ('charge', 'customer:' || b.customer_id, -b.charge_e10),
    ('charge', 'merchant:' || b.merchant_id || ':revenue',
     CASE WHEN b.customer_id IS NULL THEN 0 ELSE b.charge_e10 END),
    ('cost', 'merchant:' || b.merchant_id || ':cost', -b.cost_e10),
    ('cost', 'provider:' || b.provider, b.cost_e10)
) AS e(kind, account, amount_e10)
WHERE e.account IS NOT NULL AND e.amount_e10 <> 0;

-- name: insert_entries
-- Adds ledger entries, a JSON array of objects; every transaction must be whole in one call.
-- args: rows text, created_at timestamptz
INSERT INTO ledger_entries
    (transaction_id, merchant_id, account, amount_e10, kind, request_id, customer_id, created_at)
SELECT t.*, :created_at::timestamptz
FROM json_to_recordset(:rows::text::json)
    AS t(transaction_id text, merchant_id text, account text, amount_e10 bigint, kind text,
         request_id text, customer_id text);

-- name: burn_grants
-- Takes from credit that no worker holds.
-- args: grant_ids text[], amounts bigint[]
UPDATE credit_grants g
SET available_e10 = g.available_e10 - t.amount, spent_e10 = g.spent_e10 + t.amount
FROM unnest(:grant_ids::text[], :amounts::bigint[]) AS t(grant_id, amount)
WHERE g.grant_id = t.grant_id;

-- name: open_limits
-- Accounts of limits that a restored database does not know any more.
-- args: owner_ids text[], merchant_ids text[]
INSERT INTO accounts (owner_id, merchant_id)
SELECT * FROM unnest(:owner_ids::text[], :merchant_ids::text[]) AS t(owner_id, merchant_id)
ORDER BY owner_id
ON CONFLICT DO NOTHING;

-- name: spend_beyond
-- Records what was spent beyond limits, in the one grant that each has.
-- args: owner_ids text[], amounts bigint[]
INSERT INTO credit_grants AS g
    (grant_id, owner_id, merchant_id, kind, amount_e10, available_e10, spent_e10)
SELECT a.owner_id, a.owner_id, a.merchant_id, 'limit', t.amount, 0, t.amount
FROM unnest(:owner_ids::text[], :amounts::bigint[]) AS t(owner_id, amount)
JOIN accounts a USING (owner_id)
ON CONFLICT (grant_id) DO UPDATE
SET amount_e10 = g.amount_e10 + excluded.amount_e10,
    spent_e10 = g.spent_e10 + excluded.spent_e10;

-- name: change_accounts
-- Moves debt and leased overdraft.
-- args: owner_ids text[], debts bigint[], overdrafts bigint[]
UPDATE accounts a
SET debt_e10 = a.debt_e10 + t.debt, overdraft_leased_e10 = a.overdraft_leased_e10 + t.overdraft
FROM unnest(:owner_ids::text[], :debts::bigint[], :overdrafts::bigint[])
    AS t(owner_id, debt, overdraft)
WHERE a.owner_id = t.owner_id;

-- name: insert_objects
-- Remembers who made which object at a provider.
-- args: providers text[], object_ids text[], merchant_ids text[], customer_ids text[]
INSERT INTO provider_objects (provider, object_id, merchant_id, customer_id)
SELECT * FROM unnest(:providers::text[], :object_ids::text[], :merchant_ids::text[],
                     :customer_ids::text[])
ON CONFLICT DO NOTHING;

-- name: owner_of_object
-- Who made this object at the provider.
-- args: provider text, object_id text
SELECT merchant_id, customer_id FROM provider_objects
WHERE provider = :provider::text AND object_id = :object_id::text;

-- name: booked_request
-- Whether an id is taken, by which content, and since when.
-- args: merchant_id text, request_id text
SELECT created_at, content_hash FROM request_ids
WHERE merchant_id = :merchant_id::text AND request_id = :request_id::text;
