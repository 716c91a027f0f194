-- A stored response may be paid for bit by bit: a stream that is left early, a read while it still
-- runs. Amounts are counts (tokens, characters, milliseconds, each in and out) and costs (in, out,
-- total), as `store/claims.py` has them; '{}' is nothing. What stands here already was whole.

ALTER TABLE metered_objects
    ADD COLUMN final     boolean  NOT NULL DEFAULT true, -- its last word is booked
    ADD COLUMN booked    bigint[] NOT NULL DEFAULT '{}', -- what later reads do not pay again
    ADD COLUMN unclaimed bigint[] NOT NULL DEFAULT '{}', -- of it, what the call that made it will not
    ADD COLUMN kept      boolean  NOT NULL DEFAULT false, -- credit waits for it: `store/kept.py`
    ADD COLUMN over      boolean  NOT NULL DEFAULT false; -- no credit need wait for it
