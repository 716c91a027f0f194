-- name: claim_lookups
-- Takes payments whose end is not known, so that no other process looks them up before the next
-- time: after a pause that doubles, and when they are given up. A checkout is given up with its
-- session, a payment into the wallet from when it was begun; what workers charge is not, but for what
-- nobody is to pay any more: after a dozen looks (three days) that is left to the provider's messages.
-- args: provider text, now timestamptz, pause_s float8, pause_max_s float8, give_up_s float8, most int
UPDATE payments p
SET looks = p.looks + 1,
    look_at = CASE WHEN p.status = 'cancelled' AND p.looks >= 12 THEN NULL
                   WHEN due.given_up_at > :now::timestamptz THEN least(due.given_up_at, due.again_at)
                   ELSE due.again_at END
FROM (SELECT y.payment_id, cs.expires_at,
             coalesce(cs.expires_at, CASE WHEN y.purpose = 'wallet' THEN y.created_at END)
                 + make_interval(secs => :give_up_s::float8) AS given_up_at,
             :now::timestamptz + make_interval(secs => least(
                 :pause_max_s::float8, :pause_s::float8 * power(2, least(y.looks, 16)))) AS again_at
      FROM payments y
      LEFT JOIN checkout_sessions cs ON cs.checkout_session_id = y.checkout_session_id
      WHERE y.look_at <= :now::timestamptz AND y.provider = :provider::text
      ORDER BY y.look_at LIMIT :most::int FOR NO KEY UPDATE OF y SKIP LOCKED) due
WHERE p.payment_id = due.payment_id
RETURNING p.payment_id, p.purpose, p.attempts, p.created_at, p.provider_ref, p.page_ref,
    p.next_attempt_at IS NULL AS answered,
    coalesce(p.status = 'cancelled' OR due.given_up_at <= :now::timestamptz, false) AS given_up,
    coalesce(due.expires_at > :now::timestamptz, false) AS may_try_again,
    coalesce(p.customer_id, (SELECT s.buyer_id FROM checkout_sessions s
                             WHERE s.checkout_session_id = p.checkout_session_id),
             p.merchant_id) AS owner_id,
    (SELECT r.payer_ref FROM payers r
     WHERE r.provider = :provider::text AND r.owner_id = coalesce(p.customer_id,
         (SELECT s.buyer_id FROM checkout_sessions s
          WHERE s.checkout_session_id = p.checkout_session_id), p.merchant_id)) AS payer_ref;

-- name: note_page
-- The provider's page that a payment is to be made on.
-- args: payment_id text, page_ref text
UPDATE payments SET page_ref = :page_ref::text WHERE payment_id = :payment_id::text;

-- name: give_up
-- Nobody pays this any more; why the last try failed stays. Money that comes all the same counts.
-- args: payment_id text, code text, message text, now timestamptz
UPDATE payments
SET status = 'cancelled', look_at = NULL, next_attempt_at = NULL,
    settled_at = coalesce(settled_at, :now::timestamptz),
    error_code = CASE WHEN status IN ('cancelled', 'failed') THEN error_code ELSE :code::text END,
    error_message = CASE WHEN status IN ('cancelled', 'failed') THEN error_message
                         ELSE :message::text END
WHERE payment_id = :payment_id::text;

-- name: end_try
-- Where this was to be paid it cannot be any more; a further try is another page.
-- args: payment_id text, code text, message text, now timestamptz
UPDATE payments
SET status = 'failed', attempts = attempts + 1, look_at = NULL, next_attempt_at = NULL,
    told_at = :now::timestamptz, error_code = :code::text, error_message = :message::text
WHERE payment_id = :payment_id::text;

-- name: look_soon
-- A payment whose end is not known is looked up at the next round.
-- args: payment_id text, now timestamptz
UPDATE payments SET look_at = least(look_at, :now::timestamptz)
WHERE payment_id = :payment_id::text AND look_at IS NOT NULL;
