"""Encoders whose features are hard to turn back into the picture; what any encoder leaks."""

__version__ = "0.1.0"
