"""The limit of files and sockets that this process may have open at once."""

import resource
from contextlib import suppress


def raise_descriptor_limit() -> None:
    """Raises the soft limit to the hard one: each request in flight needs a few descriptors.

    A system that does not grant this, as macOS where there is no hard limit, keeps its own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
