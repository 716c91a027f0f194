-- Old months may go. A partition is dropped whole, never emptied row by row, and only after an audit
-- has verified all of its rows; what it summed up to is signed off here, and audits begin from that.
--
-- Request ids and roll-ups stay for ever: an old id is still taken, an old day still has its usage.

CREATE TABLE retired_parts (
    part       text PRIMARY KEY,
    -- Nothing created before this is in the books any more, but for rows that came late.
    upto       timestamptz NOT NULL,
    entries    bigint NOT NULL,
    retired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The transaction up to which the audit behind it had verified the books.
    upto_xid   bigint NOT NULL
);
-- The sum of each customer's entries in a dropped partition.
CREATE TABLE retired_ledger (
    part       text NOT NULL REFERENCES retired_parts,
    account    text NOT NULL,
    amount_e10 bigint NOT NULL,
    PRIMARY KEY (part, account)
);
-- The units of each tier scope in a dropped partition.
CREATE TABLE retired_units (
    part     text NOT NULL REFERENCES retired_parts,
    owner_id text NOT NULL,
    meter_id text NOT NULL,
    cycle    text NOT NULL,
    units    bigint NOT NULL,
    PRIMARY KEY (part, owner_id, meter_id, cycle)
);
CREATE TRIGGER signed_off BEFORE UPDATE OR DELETE ON retired_parts
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER signed_off BEFORE UPDATE OR DELETE ON retired_ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER signed_off BEFORE UPDATE OR DELETE ON retired_units
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A name cannot be an argument of DROP TABLE. Only a signed-off month goes this way.
CREATE FUNCTION drop_month(part text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF part !~ '^(requests|ledger_entries)_[0-9]{6}$'
       OR NOT EXISTS (SELECT FROM retired_parts r WHERE r.part = drop_month.part) THEN
        RAISE EXCEPTION '% is not a month that was signed off', part;
    END IF;
    EXECUTE format('DROP TABLE %I', part);
END $$;
