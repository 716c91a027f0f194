"""Metrics and logs: what the house tells its operators."""
