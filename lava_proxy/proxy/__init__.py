"""One request's journey through the gateway: intake, admission, relay, settlement."""
