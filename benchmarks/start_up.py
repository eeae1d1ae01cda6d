"""How soon every command answers --help, --version and a mistyped option, and its peak memory.

    python benchmarks/start_up.py

Each is started five times, and the least counts: others share the machine. On a busy one look at
the CPU time, of which the waiting is no part.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("pipelines", "trainer", "evaluation", "demo")
ARGUMENTS = {"--help": 0, "--version": 0, "--hlep": 2}
STARTS = 5


def commands() -> list[str]:
    """The modules that are commands: those which leave by cli.run(main)."""
    paths = [path for name in PACKAGES for path in sorted((REPOSITORY / name).rglob("*.py"))]
    return [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__main__")
        for path in paths
        if "    cli.run(main" in path.read_text()
    ]


def start(command: str, argument: str) -> tuple[float, float, float]:
    """Seconds, those of CPU, and the peak MiB of one start."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", command, argument],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != ARGUMENTS[argument]:
        raise SystemExit(f"python -m {command} {argument}: status {process.returncode}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Prints a row a command."""
    columns = [*(f"{argument} s" for argument in ARGUMENTS), "CPU s", "MiB"]
    print(f"| python -m | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for command in commands():
        starts = [[start(command, argument) for _ in range(STARTS)] for argument in ARGUMENTS]
        least = [[min(values) for values in zip(*some, strict=True)] for some in starts]
        seconds = " | ".join(f"{wall:.2f}" for wall, _, _ in least)
        cpu, mib = (max(values) for values in list(zip(*least, strict=True))[1:])
        print(f"| {command} | {seconds} | {cpu:.2f} | {mib:.0f} |", flush=True)


if __name__ == "__main__":
    main()
