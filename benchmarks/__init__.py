"""Benchmarks of the gateway against nginx and a naive proxy, in the same run."""
