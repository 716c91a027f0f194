-- What became of a quarantined row, and what its charge comes to at most while nobody has decided:
-- so much of the customer's credit is leased to the row itself (holder `quarantine_<id>`).

ALTER TABLE quarantine
    ADD COLUMN owner_id   text,
    ADD COLUMN charge_e10 bigint NOT NULL DEFAULT 0 CHECK (charge_e10 >= 0),
    ADD COLUMN state      text NOT NULL DEFAULT 'held'
               CHECK (state IN ('held', 'booked', 'released')),
    ADD COLUMN decided_at timestamptz;
CREATE INDEX quarantine_held ON quarantine (quarantine_id) WHERE state = 'held';
