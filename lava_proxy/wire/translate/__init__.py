"""Translation between provider dialects, by one neutral form: pure functions over values."""
