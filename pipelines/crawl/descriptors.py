"""The limit of files and sockets that this process may have open at once."""

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.command.cli import WorkError

# A connection, a body on its way to disk, and two files of its shard, which may have no other line.
_A_REQUEST = 4
# Name servers, plans, tables, progress, pipes of a decoder that is started again, Beam.
_BESIDES = 14


@dataclass(frozen=True)
class Room:
    """What fits into the limit."""

    in_flight: int
    connections: int
    """Open at once, those kept alive included."""
    warning: str
    """Where fewer are in flight than wanted."""


def room_for(wanted: int) -> Room:
    """How many of the wanted requests in flight fit, once the soft limit is the hard one.

    Raises WorkError where not even one fits. Where the system does not grant the hard limit, as
    macOS without one, the soft limit stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        limit = 1 << 20
    free = limit - _open() - _BESIDES
    in_flight = min(wanted, free // _A_REQUEST)
    told = f"no more than {limit} files may be open at once (ulimit -n)"
    if in_flight < 1:
        raise WorkError(f"{told}, which is too few for one request")
    warning = f"{told}: {in_flight} requests in flight instead of {wanted}"
    return Room(
        in_flight,
        free - in_flight * (_A_REQUEST - 1),
        warning if in_flight < wanted else "",
    )


def _open() -> int:
    folder = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
    return len(list(folder.iterdir()))
