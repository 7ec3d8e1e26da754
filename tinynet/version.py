"""The version, in a file of its own: everything may ask for it."""

__version__ = "0.1.0"
