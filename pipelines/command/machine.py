"""What this machine lacks or breaks: never the fault of a URL, a host or a picture."""

import errno
import re
import ssl
from typing import TypeGuard

_FEWER = "or lower --concurrency"
_FILES = f"allow it more open files (ulimit -n) {_FEWER}"
_MEMORY = f"give it more memory {_FEWER}"
_PORTS = "none of its ports is free: lower --concurrency and --requests-per-host"
_DISK = "see to its disk"
CURES = {
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "allow it larger files (ulimit -f)",
    errno.EROFS: _DISK,
    errno.EIO: _DISK,
    errno.ENOMEM: _MEMORY,
    errno.ENOBUFS: _MEMORY,
    errno.EAGAIN: "allow it more processes (ulimit -u)",
    errno.EADDRNOTAVAIL: _PORTS,
    errno.EADDRINUSE: _PORTS,
}
"""The errors that are this machine's, and what helps. All others are of what was asked for."""

_TOLD = re.compile(r"\[Errno (\d+)\] (.*?)(?: \[while running .*)?$", re.MULTILINE)


class MachineError(Exception):
    """This machine's error where an OSError would be taken for a URL's."""

    def __init__(self, error: OSError) -> None:
        where = f": {error.filename!r}" if error.filename else ""
        super().__init__(f"[Errno {error.errno}] {error.strerror}{where}")


def is_machines(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether an error is this machine's."""
    if not isinstance(error, OSError) or error.errno not in CURES:
        return False
    # In an error of TLS the same number means something else.
    return not any(isinstance(part, ssl.SSLError) for part in (error, error.__cause__))


def machine_reason(text: str) -> str:
    """'Too many open files: allow …', if that is what the text of an error tells of, else empty."""
    for number, what in _TOLD.findall(text):
        if cure := CURES.get(int(number)):
            return f"{what}: {cure}"
    return ""
