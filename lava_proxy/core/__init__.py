"""Words that every floor uses: money, ids, clock, errors, invariants, settings."""
