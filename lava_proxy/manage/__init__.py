"""The REST API: one file per resource; auth, paging, validation and idempotency in one place each."""
