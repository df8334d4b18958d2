"""Joint-embedding pre-training: one file per method, on the engine of ``trainlib``."""
