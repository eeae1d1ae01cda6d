"""A worker process of the embedded runner: Beam's own, quiet, and ended with its driver."""

import gc
import logging
import sys

from pipelines.command.child_process import end_with_parent
from pipelines.command.cli import COLLECTED_AFTER


def main() -> None:
    """Runs Beam's worker until the runner is done with it."""
    # A worker that has not reached its driver yet would wait for a dead one for minutes.
    end_with_parent(int(sys.argv[1]))
    gc.set_threshold(COLLECTED_AFTER)
    # Records reach the driver through Beam; without a handler here they would also be printed.
    logging.getLogger().addHandler(logging.NullHandler())
    from apache_beam.runners.worker import sdk_worker, sdk_worker_main

    sdk_worker.print = lambda *_, **__: None  # what it prints of an error it logs as well
    sdk_worker_main.main(sys.argv[:1])


if __name__ == "__main__":
    main()
