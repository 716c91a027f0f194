-- Requests that wait for a price: booked without any, or at an assumed one. They leave when they are
-- re-rated, so looking for work costs what waits and not what was. `limits` are the accounts of the
-- limits in money that the request drew on.

CREATE TABLE unrated_requests (
    merchant_id text NOT NULL,
    request_id  text NOT NULL,
    created_at  timestamptz NOT NULL,
    provider    text NOT NULL,
    -- As the provider named it; longer ones cut off, no price is for so long a name.
    model       text NOT NULL,
    -- As it was asked for, where that is another name; else ''.
    asked       text NOT NULL,
    limits      text[] NOT NULL,
    -- What could have priced it when that was tried in vain.
    tried       text NOT NULL DEFAULT '',
    PRIMARY KEY (merchant_id, provider, model, asked, created_at, request_id)
);

INSERT INTO unrated_requests (merchant_id, request_id, created_at, provider, model, asked, limits)
SELECT r.merchant_id, r.request_id, r.created_at, r.provider, left(r.model, 256), '', '{}'
FROM requests r
WHERE r.flags && ARRAY['unpriced', 'price_assumed'] AND r.model IS NOT NULL
  AND r.status = 'completed' AND NOT 'metered_before' = ANY(r.flags)
  AND (r.price_version IS NULL OR 'price_assumed' = ANY(r.flags))
  AND NOT EXISTS (SELECT FROM reratings x
                  WHERE x.merchant_id = r.merchant_id AND x.request_id = r.request_id);

-- How cost and charge divide since; NULL: as they were booked (and in corrections from before).
ALTER TABLE reratings
    ADD COLUMN input_cost_e10 bigint,
    ADD COLUMN breakdown      jsonb;

-- Last, because it locks the requests: nothing looks for such rows among them any more.
DROP INDEX requests_without_a_price;
