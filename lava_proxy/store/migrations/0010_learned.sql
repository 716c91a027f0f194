-- What was learned about a model's streams: provider's own count over our estimate. A new worker
-- starts with what all others know.

CREATE TABLE learned_factors (
    provider   text NOT NULL,
    model      text NOT NULL,
    -- Millionths.
    ratio_e6   bigint NOT NULL CHECK (ratio_e6 > 0),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (provider, model)
);
CREATE INDEX learned_factors_newest ON learned_factors (updated_at DESC);
