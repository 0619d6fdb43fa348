"""The one place where the version of openmar stands."""

__version__ = "0.1.0"
