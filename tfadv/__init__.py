"""Encoders whose features cannot be turned back into the picture; what any encoder leaks."""

__version__ = "0.1.0"
