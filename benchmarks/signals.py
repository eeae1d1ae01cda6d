"""Builds that get Ctrl-C or SIGTERM at random moments: status 3 in time, nothing left, resumable.

    python -m benchmarks.signals [--moments 40] [--seed 0] [--pictures 120] [--folder DIR]

Serves pictures on loopback and builds them once undisturbed. Then the same command is given again
and again. Each time it gets one or two signals at a random moment, from its first instructions to
after its end. A folder that is complete has to hold the bytes of the undisturbed build, and the
next moment begins a new one. An interrupted command has to end with status 3 within 10 seconds and
one line that says so, without a traceback, and with none of its processes left. Ends with status 1
where one does not. Linux only: reads /proc.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.crawl import tree
from benchmarks.kill_build import Site, command, content, leftovers

_REPOSITORY = Path(__file__).resolve().parents[1]
_WITHIN_S = 10.0
_GONE_S = 2.0
_TERM, _INT = signal.SIGTERM, signal.SIGINT
# A terminal's Ctrl-C reaches all processes of the command, as does SIGTERM from a service manager.
_KINDS = {
    "SIGTERM": ([_TERM], False),
    "SIGINT to all": ([_INT], True),
    "SIGTERM twice": ([_TERM, _TERM], False),
    "SIGINT twice to all": ([_INT, _INT], True),
    "SIGINT, SIGTERM": ([_INT, _TERM], False),
    "SIGTERM to all": ([_TERM], True),
}


@dataclass(frozen=True)
class Moment:
    """What a signal led to."""

    at_s: float
    kind: str
    crawlers: int
    status: int
    took_s: float
    """From the first signal to the end."""
    fault: str
    """Empty where all is well."""


class Trial:
    """One list, and the folder that is being built of it."""

    def __init__(self, site: Site, home: Path) -> None:
        self._home, self._list = home, home / "list.txt"
        self._list.write_text("\n".join(site.lines) + "\n")
        undisturbed = home / "undisturbed"
        self._whole_s = {}
        for crawlers in (1, 2):
            begun = time.monotonic()
            shutil.rmtree(undisturbed, ignore_errors=True)
            self._start(undisturbed, crawlers).communicate()
            self._whole_s[crawlers] = time.monotonic() - begun
        self._expected = content(undisturbed)
        if fault := leftovers(undisturbed):
            raise SystemExit(f"the undisturbed build failed: {fault}")
        self._output = self._fresh()

    def _fresh(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._home)) / "set"

    def _start(self, output: Path, crawlers: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(self._list, output, crawlers=crawlers),
            cwd=_REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def interrupt(self, kind: str, crawlers: int, choice: random.Random) -> Moment:
        """Goes on with the build, and sends the signals at a random moment."""
        signals, to_all = _KINDS[kind]
        process = self._start(self._output, crawlers)
        # Before Python has started there is no one to obey a signal.
        while process.poll() is None and not _obeys(process.pid):
            time.sleep(0.01)
        at_s = choice.uniform(0, self._whole_s[crawlers])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(at_s)
        processes = list(tree(process.pid))
        sent = time.monotonic()
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if to_all else os.kill)(process.pid, number)
            if len(signals) > 1:
                time.sleep(choice.choice([0, 0.001, 0.1, 0.5]))
        fault = ""
        try:
            _, log = process.communicate(timeout=_WITHIN_S + 20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, log = process.communicate()
            fault = "it did not end"
        took_s = time.monotonic() - sent
        fault = fault or self._fault(process.returncode, took_s, log, processes)
        if not process.returncode:
            self._output = self._fresh()
        return Moment(at_s, kind, crawlers, process.returncode, took_s, fault)

    def _fault(self, status: int, took_s: float, log: str, processes: list[int]) -> str:
        if left := _left(processes):
            return f"{left} processes are left"
        if status == 0:
            fault = leftovers(self._output)
            return fault or ("" if content(self._output) == self._expected else "other bytes")
        if status != 3:
            return f"status {status}: {log[-2000:]}"
        if took_s > _WITHIN_S:
            return f"it took {took_s:.1f} s"
        last = log.splitlines()[-1]
        if not last.startswith("interrupted: "):
            return f"its last line is {last!r}"
        return f"a traceback: {log[-3000:]}" if "Traceback" in log else ""


def _obeys(pid: int) -> bool:
    """Whether a process has a handler of its own for all signals that are sent."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return all(caught >> (number - 1) & 1 for number in (_TERM, _INT))


def _left(processes: list[int]) -> int:
    """How many of the processes still run when their end had time to be noticed."""
    until = time.monotonic() + _GONE_S
    while left := [pid for pid in processes if _runs(pid)]:
        if time.monotonic() > until:
            return len(left)
        time.sleep(0.02)
    return 0


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def run(moments: int, seed: int, pictures: int, home: Path) -> Iterator[Moment]:
    """The moments, one after another, each kind in turn."""
    site = Site(pictures)
    choice = random.Random(seed)
    try:
        trial = Trial(site, home)
        for number in range(moments):
            kind = list(_KINDS)[number % len(_KINDS)]
            yield trial.interrupt(kind, 1 + number // len(_KINDS) % 2, choice)
    finally:
        site.close()


def main() -> None:
    """Prints a line a moment, and what went wrong last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--folder", type=Path, help="where the datasets go; else a temporary one")
    options = parser.parse_args()
    faults = []
    home = Path(tempfile.mkdtemp(dir=options.folder))
    print("moment   at s  signals              crawlers  status  took s")
    moments = run(options.moments, options.seed, options.pictures, home)
    for number, moment in enumerate(moments, 1):
        print(
            f"{number:6} {moment.at_s:6.2f}  {moment.kind:20} {moment.crawlers:8}"
            f"{moment.status:8}{moment.took_s:8.2f}  {moment.fault.splitlines()[:1] or ''}",
            flush=True,
        )
        if moment.fault:
            faults.append(f"moment {number}: {moment.fault}")
    shutil.rmtree(home)
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()
