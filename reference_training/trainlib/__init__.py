"""Shared parts of the reference training scripts: configuration, data, models, loop, evaluation, report."""
