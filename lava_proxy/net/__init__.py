"""Outgoing HTTP: the connection to providers, and a provider to practise on."""
