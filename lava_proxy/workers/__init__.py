"""Background loops of a worker: each knows one job, `loop.py` alone knows about time."""
