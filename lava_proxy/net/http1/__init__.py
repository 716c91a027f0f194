"""An HTTP/1.1 client for one purpose: calling providers, honest about how an answer ended."""
