-- Limits of cycles that are long over are dropped, with their leases (store/limits.py). These are what
-- the drop, and the foreign keys that it asks, look rows up by; without them it would read all leases.

CREATE INDEX leases_by_owner ON leases (owner_id);
CREATE INDEX lease_parts_by_grant ON lease_parts (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX cycles_by_grant ON cycles (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX payments_by_grant ON payments (grant_id) WHERE grant_id IS NOT NULL;
