"""Benchmarks: our code against a peer doing the same work, timed in turn in one process."""
