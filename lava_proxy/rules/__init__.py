"""Money rules: pure functions over integers; no clock, no I/O, no await."""
