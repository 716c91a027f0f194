"""Live money state of one process: directory, leases, holds, journal, writer."""
