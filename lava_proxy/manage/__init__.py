"""The REST API: one file per resource, and one place each for what they share."""
