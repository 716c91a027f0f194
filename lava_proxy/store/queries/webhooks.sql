-- name: create_webhook
-- Makes a webhook in the lowest free place; no row comes back when all are taken, or when another
-- creation took the same place at the same moment.
-- args: webhook_id text, merchant_id text, name text, url text, secret_sealed bytea,
--   events text[], created_at timestamptz, most int
INSERT INTO webhooks
    (webhook_id, merchant_id, slot, name, url, secret_sealed, events, created_at)
SELECT :webhook_id::text, :merchant_id::text, place, :name::text, :url::text,
       :secret_sealed::bytea, :events::text[], :created_at::timestamptz
FROM generate_series(1, :most::int) AS place
WHERE NOT EXISTS (SELECT FROM webhooks w
                  WHERE w.merchant_id = :merchant_id::text AND w.slot = place)
ORDER BY place LIMIT 1
ON CONFLICT (merchant_id, slot) DO NOTHING
RETURNING webhook_id;

-- name: lock_webhook
-- A webhook, locked; without a merchant, anybody's.
-- args: merchant_id text, webhook_id text
SELECT webhook_id FROM webhooks
WHERE webhook_id = :webhook_id::text
  AND (:merchant_id::text IS NULL OR merchant_id = :merchant_id::text)
FOR UPDATE;

-- name: find_webhook
-- A merchant's webhook; without a merchant, anybody's.
-- args: merchant_id text, webhook_id text, now timestamptz
SELECT webhook_id, name, url, events, created_at, disabled_at,
       (SELECT max(ends_at) FROM webhook_old_secrets o
        WHERE o.webhook_id = w.webhook_id AND o.ends_at > :now::timestamptz) AS old_secret_until
FROM webhooks w
WHERE webhook_id = :webhook_id::text
  AND (:merchant_id::text IS NULL OR merchant_id = :merchant_id::text);

-- name: list_webhooks
-- A merchant's webhooks behind a place in the list, newest first.
-- args: merchant_id text, before_at timestamptz, before_id text, most int, now timestamptz
SELECT webhook_id, name, url, events, created_at, disabled_at,
       (SELECT max(ends_at) FROM webhook_old_secrets o
        WHERE o.webhook_id = w.webhook_id AND o.ends_at > :now::timestamptz) AS old_secret_until
FROM webhooks w
WHERE merchant_id = :merchant_id::text
  AND (created_at, webhook_id) < (:before_at::timestamptz, :before_id::text)
ORDER BY created_at DESC, webhook_id DESC LIMIT :most::int;

-- name: update_webhook
-- Changes what is given; NULL leaves a field as it is. `afresh` forgets how its tries ended, and
-- what it is still to be told is due at once.
-- args: merchant_id text, webhook_id text, name text, url text, events text[], afresh bool,
--   now timestamptz
WITH changed AS (
    UPDATE webhooks SET
        name = coalesce(:name::text, name), url = coalesce(:url::text, url),
        events = coalesce(:events::text[], events),
        failures = CASE WHEN :afresh::bool THEN 0 ELSE failures END,
        failing_since = CASE WHEN :afresh::bool THEN NULL ELSE failing_since END,
        disabled_at = CASE WHEN :afresh::bool THEN NULL ELSE disabled_at END,
        quiet_until = CASE WHEN :afresh::bool THEN '-infinity' ELSE quiet_until END
    WHERE webhook_id = :webhook_id::text
      AND (:merchant_id::text IS NULL OR merchant_id = :merchant_id::text)
    RETURNING webhook_id
)
UPDATE webhook_deliveries d SET next_at = :now::timestamptz FROM changed
WHERE d.webhook_id = changed.webhook_id AND d.status = 'pending' AND :afresh::bool
  AND d.next_at > :now::timestamptz;

-- name: turn_secret
-- Puts another secret in the place of a webhook's, which becomes an old one; none of those ends later
-- than `ends_at`. Answers how many signed until now. The webhook is locked.
-- args: webhook_id text, secret_sealed bytea, ends_at timestamptz, now timestamptz
WITH shortened AS (
    UPDATE webhook_old_secrets SET ends_at = :ends_at::timestamptz
    WHERE webhook_id = :webhook_id::text AND ends_at > :ends_at::timestamptz
), old AS (
    INSERT INTO webhook_old_secrets (webhook_id, secret_sealed, ends_at)
    SELECT webhook_id, secret_sealed, :ends_at::timestamptz FROM webhooks
    WHERE webhook_id = :webhook_id::text
)
UPDATE webhooks SET secret_sealed = :secret_sealed::bytea WHERE webhook_id = :webhook_id::text
RETURNING (SELECT count(*)::int FROM webhook_old_secrets o
           WHERE o.webhook_id = :webhook_id::text AND o.ends_at > :now::timestamptz) AS signing;

-- name: forget_secrets
-- Forgets secrets that ended.
-- args: now timestamptz
DELETE FROM webhook_old_secrets WHERE ends_at <= :now::timestamptz;

-- name: delete_webhook
-- Removes a webhook with its deliveries.
-- args: merchant_id text, webhook_id text
DELETE FROM webhooks
WHERE merchant_id = :merchant_id::text AND webhook_id = :webhook_id::text
RETURNING webhook_id;

-- name: emit
-- Writes events into the outbox, for merchants with a webhook that wants one; for all others it is
-- one look-up. A change of balance joins the event that waits. It locks that row, so nobody reads
-- the balance for it before this transaction is over.
-- args: event_ids text[], merchant_ids text[], events text[], customer_ids text[],
--   request_ids text[], now timestamptz
INSERT INTO webhook_events (event_id, merchant_id, event, customer_id, request_id, created_at)
SELECT t.event_id, t.merchant_id, t.event, t.customer_id, t.request_id, :now::timestamptz
FROM unnest(:event_ids::text[], :merchant_ids::text[], :events::text[], :customer_ids::text[],
            :request_ids::text[]) AS t(event_id, merchant_id, event, customer_id, request_id)
WHERE EXISTS (
    SELECT FROM webhooks w WHERE w.merchant_id = t.merchant_id
    AND (t.event = ANY(w.events)
         OR t.event = 'customer.wallet.balance.updated'
         AND w.events && ARRAY['customer.credit.low', 'customer.credit.exhausted']))
ORDER BY t.customer_id, t.event_id
ON CONFLICT (customer_id)
    WHERE dispatched_at IS NULL AND event = 'customer.wallet.balance.updated'
DO UPDATE SET request_id = NULL;

-- name: take_events
-- Locks events that wait for their deliveries, oldest first.
-- args: most int
SELECT event_id, merchant_id, event, customer_id, request_id, created_at
FROM webhook_events WHERE dispatched_at IS NULL
ORDER BY created_at, event_id LIMIT :most::int FOR UPDATE SKIP LOCKED;

-- name: told_customers
-- Customers, deleted ones too, with their credit and what their webhooks heard of it last.
-- args: customer_ids text[]
SELECT c.customer_id, c.reference_id, c.phone, c.email, c.first_name, c.last_name,
       c.metadata::text AS metadata, c.created_at, coalesce(a.debt_e10, 0) AS debt_e10,
       coalesce(g.available_e10, 0)::bigint AS available_e10,
       coalesce(g.leased_e10, 0)::bigint AS leased_e10,
       coalesce(g.cycle_e10, 0)::bigint AS cycle_e10,
       coalesce(g.bundle_e10, 0)::bigint AS bundle_e10,
       coalesce(l.level, 'fine') AS level
FROM customers c
LEFT JOIN accounts a ON a.owner_id = c.customer_id
LEFT JOIN webhook_levels l ON l.customer_id = c.customer_id
LEFT JOIN LATERAL (
    SELECT sum(free_e10)::bigint AS available_e10, sum(leased_e10)::bigint AS leased_e10,
           (sum(free_e10 + leased_e10) FILTER (WHERE kind = 'cycle'))::bigint AS cycle_e10,
           (sum(free_e10 + leased_e10) FILTER (WHERE kind <> 'cycle'))::bigint AS bundle_e10
    FROM (SELECT kind, leased_e10,
                 CASE WHEN expires_at <= now() THEN 0 ELSE available_e10 END AS free_e10
          FROM credit_grants
          WHERE owner_id = c.customer_id AND (available_e10 > 0 OR leased_e10 > 0)) AS open_grants
) g ON true
WHERE c.customer_id = ANY(:customer_ids::text[]);

-- name: save_levels
-- Remembers what is being told about customers' credit.
-- args: customer_ids text[], levels text[]
INSERT INTO webhook_levels (customer_id, level)
SELECT * FROM unnest(:customer_ids::text[], :levels::text[])
ON CONFLICT (customer_id) DO UPDATE SET level = excluded.level;

-- name: freeze_events
-- Gives events their bodies; those that crossed a level are new rows.
-- args: event_ids text[], merchant_ids text[], events text[], customer_ids text[],
--   created_ats timestamptz[], bodies bytea[], now timestamptz
INSERT INTO webhook_events
    (event_id, merchant_id, event, customer_id, created_at, body, dispatched_at)
SELECT t.*, :now::timestamptz
FROM unnest(:event_ids::text[], :merchant_ids::text[], :events::text[], :customer_ids::text[],
            :created_ats::timestamptz[], :bodies::bytea[]) AS t
ON CONFLICT (event_id) DO UPDATE
SET body = excluded.body, dispatched_at = excluded.dispatched_at;

-- name: fan_out
-- Makes one delivery per event and webhook that wants it.
-- args: event_ids text[], now timestamptz
INSERT INTO webhook_deliveries (event_id, webhook_id, created_at, next_at)
SELECT e.event_id, w.webhook_id, :now::timestamptz, :now::timestamptz
FROM webhook_events e
JOIN webhooks w ON w.merchant_id = e.merchant_id AND e.event = ANY(w.events)
WHERE e.event_id = ANY(:event_ids::text[])
ON CONFLICT DO NOTHING;

-- name: claim
-- Takes deliveries that are due: at most `per_webhook` of one endpoint (one, where the last try
-- failed), endpoints that work before those that do not, and of the latter at most `failing_most`.
-- Endpoints are found by jumping from one to the next in the index, so a long queue costs no more.
-- args: busy text[], per_webhook int, failing_most int, most int, claim_s float8, now timestamptz
WITH RECURSIVE waiting AS (
    (SELECT webhook_id FROM webhook_deliveries WHERE status = 'pending'
     ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.webhook_id FROM webhook_deliveries d
            WHERE d.status = 'pending' AND d.webhook_id > waiting.webhook_id
            ORDER BY d.webhook_id LIMIT 1)
    FROM waiting WHERE waiting.webhook_id IS NOT NULL
), due AS (
    SELECT w.webhook_id, w.merchant_id, w.url, w.secret_sealed, d.event_id, d.next_at,
           w.failures > 0 AS failing
    FROM waiting JOIN webhooks w USING (webhook_id)
    CROSS JOIN LATERAL (
        SELECT event_id, next_at FROM webhook_deliveries d
        WHERE d.webhook_id = w.webhook_id AND d.status = 'pending'
          AND d.next_at <= :now::timestamptz AND d.claimed_until <= :now::timestamptz
        ORDER BY d.next_at
        LIMIT CASE WHEN w.failures > 0 THEN 1 ELSE :per_webhook::int END
        FOR UPDATE SKIP LOCKED
    ) d
    WHERE w.quiet_until <= :now::timestamptz AND w.webhook_id <> ALL(:busy::text[])
      AND w.disabled_at IS NULL
), placed AS (
    SELECT *, row_number() OVER (PARTITION BY failing ORDER BY next_at, event_id) AS place
    FROM due
), chosen AS (
    SELECT * FROM placed WHERE NOT failing OR place <= :failing_most::int
    ORDER BY failing, next_at LIMIT :most::int
)
UPDATE webhook_deliveries d
SET claimed_until = :now::timestamptz + make_interval(secs => :claim_s::float8),
    tries = d.tries + 1
FROM chosen c JOIN webhook_events e ON e.event_id = c.event_id
WHERE d.event_id = c.event_id AND d.webhook_id = c.webhook_id
RETURNING d.event_id, d.webhook_id, d.tries, d.created_at, d.claimed_until, c.url,
          c.secret_sealed, e.body,
          ARRAY(SELECT o.secret_sealed FROM webhook_old_secrets o
                WHERE o.webhook_id = d.webhook_id AND o.ends_at > :now::timestamptz
                ORDER BY o.ends_at DESC) AS old_sealed;

-- name: lock_health
-- How tries at an endpoint ended, locked.
-- args: webhook_id text
SELECT failures, quiet_until, failing_since, failed_at, disabled_at FROM webhooks
WHERE webhook_id = :webhook_id::text FOR NO KEY UPDATE;

-- name: save_health
-- Remembers how tries at an endpoint ended.
-- args: webhook_id text, failures int, quiet_until timestamptz, failing_since timestamptz,
--   failed_at timestamptz, disabled_at timestamptz
UPDATE webhooks SET
    failures = :failures::int, quiet_until = :quiet_until::timestamptz,
    failing_since = :failing_since::timestamptz, failed_at = :failed_at::timestamptz,
    disabled_at = :disabled_at::timestamptz
WHERE webhook_id = :webhook_id::text;

-- name: end_try
-- Writes down how a try ended, unless the claim was over and somebody else has it now.
-- args: event_id text, webhook_id text, claimed_until timestamptz, status text,
--   next_at timestamptz, last_status int, last_error text, now timestamptz
UPDATE webhook_deliveries SET
    status = :status::text, next_at = :next_at::timestamptz, claimed_until = '-infinity',
    last_status = :last_status::int, last_error = :last_error::text,
    ended_at = CASE WHEN :status::text = 'pending' THEN NULL ELSE :now::timestamptz END
WHERE event_id = :event_id::text AND webhook_id = :webhook_id::text AND status = 'pending'
  AND claimed_until = :claimed_until::timestamptz
RETURNING webhook_id;

-- name: give_up_old
-- Ends deliveries that nobody could be given in time.
-- args: older_than timestamptz, now timestamptz
UPDATE webhook_deliveries
SET status = 'dead', ended_at = :now::timestamptz,
    last_error = coalesce(last_error, 'no try before its time was over')
WHERE status = 'pending' AND created_at < :older_than::timestamptz
  AND claimed_until <= :now::timestamptz;

-- name: forget_old
-- Forgets events whose deliveries have all ended.
-- args: older_than timestamptz, most int
DELETE FROM webhook_events WHERE event_id IN (
    SELECT event_id FROM webhook_events e
    WHERE e.created_at < :older_than::timestamptz AND e.dispatched_at IS NOT NULL
      AND NOT EXISTS (SELECT FROM webhook_deliveries d
                      WHERE d.event_id = e.event_id AND d.status = 'pending')
    ORDER BY e.created_at LIMIT :most::int);

-- name: queue_age
-- Since when the oldest waits that could be delivered now, in seconds.
-- args: now timestamptz
SELECT greatest(
    extract(epoch FROM :now::timestamptz - (
        SELECT min(created_at) FROM webhook_events WHERE dispatched_at IS NULL)),
    extract(epoch FROM :now::timestamptz - (
        SELECT min(d.next_at) FROM webhook_deliveries d JOIN webhooks w USING (webhook_id)
        WHERE d.status = 'pending' AND w.failures = 0)), 0)::float8 AS age_s;

-- name: list_deliveries
-- The newest deliveries, of one status or all; `failed` are those that were tried and still wait.
-- args: status text, most int
SELECT d.event_id, d.webhook_id, e.event, e.customer_id, d.status, d.tries, d.created_at,
       d.next_at, d.last_status, d.last_error
FROM webhook_deliveries d JOIN webhook_events e USING (event_id)
WHERE CASE :status::text
      WHEN 'all' THEN true
      WHEN 'failed' THEN d.status = 'pending' AND d.last_error IS NOT NULL
      ELSE d.status = :status::text END
ORDER BY d.created_at DESC, d.event_id DESC, d.webhook_id DESC LIMIT :most::int;

-- name: lock_resent
-- Locks the webhooks whose deliveries are to be resent, before these, as everybody does.
-- args: event_id text, webhook_id text
SELECT webhook_id FROM webhooks
WHERE webhook_id = :webhook_id::text OR webhook_id IN (
    SELECT webhook_id FROM webhook_deliveries WHERE event_id = :event_id::text)
ORDER BY webhook_id FOR NO KEY UPDATE;

-- name: resend
-- Puts deliveries of an event, or all dead ones of a webhook, at the head of the queue again.
-- args: event_id text, webhook_id text, now timestamptz
WITH again AS (
    UPDATE webhook_deliveries
    SET status = 'pending', tries = 0, created_at = :now::timestamptz, next_at = :now::timestamptz,
        ended_at = NULL, claimed_until = '-infinity'
    WHERE event_id = :event_id::text
       OR :event_id::text IS NULL AND webhook_id = :webhook_id::text AND status = 'dead'
    RETURNING webhook_id
), open AS (
    UPDATE webhooks SET quiet_until = '-infinity'
    WHERE webhook_id IN (SELECT webhook_id FROM again)
)
SELECT count(*)::int AS resent FROM again;
