"""The daemon: opens sockets and devices, drives one role of `signaling`, feeds `engine`, and shows what it does."""

from router._version import __version__

__all__ = ["__version__"]
