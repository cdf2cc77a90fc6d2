"""What can go wrong, in sentences for the person who started it."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster cannot be built, started or found; the message says why and how to go on."""


class GoMissing(ClusterError):
    """There is no Go to build with, and none could be installed."""
