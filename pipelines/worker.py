"""A worker process of the embedded runner: Beam's own, quiet, and ended with its driver."""

import ctypes
import logging
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs Beam's worker until the runner is done with it."""
    # A worker that has not reached its driver yet would wait for a dead one for minutes.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            return
    # Ctrl-C reaches the whole process group; the driver decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Records reach the driver through Beam; without a handler here they would also be printed.
    logging.getLogger().addHandler(logging.NullHandler())
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
