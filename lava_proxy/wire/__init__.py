"""Bytes to meaning and back: framings, headers, tokens, targets, error bodies. No I/O."""
