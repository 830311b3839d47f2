"""The parts of `bench/soak.py`: a server, honest clients, hostile ones, a probe, and the verdicts."""
