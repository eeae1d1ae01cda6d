"""What the processes that a build starts have in common."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ends this process with the one that started it, and leaves Ctrl-C to that one.

    Ctrl-C reaches the whole process group. Only Linux can tie a process to its parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # the parent was gone before
            sys.exit()
