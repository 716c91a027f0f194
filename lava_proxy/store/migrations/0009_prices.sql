-- Prices of a merchant's own, beside the operator's, and what a meter does with a model that has none.

ALTER TABLE price_overrides
    ADD COLUMN merchant_id text REFERENCES merchants, -- NULL: the operator's, for everybody
    ADD CHECK ((match = 'default') = (model = ''));
CREATE INDEX price_overrides_newest
    ON price_overrides (merchant_id, created_at DESC, override_id DESC) WHERE removed_at IS NULL;

ALTER TABLE meters
    ADD COLUMN unpriced text NOT NULL DEFAULT 'refuse' CHECK (unpriced IN ('refuse', 'dearest'));
