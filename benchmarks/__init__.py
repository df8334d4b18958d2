"""Benchmarks of matinfo beside its peers: ``python -m benchmarks --help``."""
