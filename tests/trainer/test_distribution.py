from types import SimpleNamespace

import pytest
import tensorflow as tf

from pipelines.command.cli import WorkError
from trainer.distribution import Workers


def workers(count):
    spec = SimpleNamespace(as_dict=lambda: {"worker": ["host:1"] * count})
    resolver = SimpleNamespace(cluster_spec=lambda: spec, task_type="worker", task_id=0)
    return Workers(SimpleNamespace(cluster_resolver=resolver))


LOST = [
    tf.errors.UnavailableError,  # what was seen where a process was killed
    tf.errors.DeadlineExceededError,  # where a host was cut off
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
]


@pytest.mark.parametrize("error", LOST)
def test_another_worker_lost_is_one_line_and_alone_it_is_a_bug(error):
    message = "Graph execution error:\nCollective ops is aborted by: Deadline Exceeded\nmore"
    said = r"^another worker is gone; .*: Collective ops is aborted by: Deadline Exceeded$"
    with pytest.raises(WorkError, match=said), workers(2).together():
        raise error(None, None, message)
    with pytest.raises(error), workers(1).together():
        raise error(None, None, message)
