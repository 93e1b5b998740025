"""Encoders whose features are hard to turn back into the image; what any encoder leaks."""

__version__ = "0.1.0"
