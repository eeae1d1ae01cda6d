import signal
import subprocess
import sys
import threading

import pytest

from pipelines.build.interruption import WORKER, Interruption
from pipelines.command.cli import WorkError


def test_another_thread_ends_the_main_threads_wait() -> None:
    with pytest.raises(WorkError, match="silent"), Interruption() as waiting:
        threading.Timer(0.01, waiting.interrupt, [WorkError("silent")]).start()
        threading.Event().wait()


def test_late_it_changes_nothing() -> None:
    with Interruption() as waiting:
        pass
    waiting.interrupt(WorkError("silent"))
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can list child processes")
def test_a_worker_that_hangs_is_killed() -> None:
    script = "import time; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script, WORKER], stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        worker.stdout.readline()
        worker.send_signal(signal.SIGSTOP)
        with pytest.raises(WorkError), Interruption() as waiting:
            threading.Timer(0.01, waiting.interrupt, [WorkError("silent")]).start()
            threading.Event().wait()
        assert worker.wait(60) == -signal.SIGKILL


def test_a_worker_process_that_died_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.build.interruption._NOTICED_BY_ITSELF_S", 0.01)

    def die() -> None:
        raise RuntimeError("status 9")

    died = pytest.raises(RuntimeError, match="a worker process died: status 9")
    with died, Interruption() as waiting:
        threading.Thread(target=die, name="run_worker").start()
        threading.Event().wait()
    assert len(waiting.deaths) == 1
