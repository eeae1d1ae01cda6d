"""Why a job failed, in one line."""

import itertools
import re

import grpc

from pipelines.command.stores import is_store_error, store_reason

_TRACEBACK, _CAUSED_BY = "Traceback (most recent call last):", "Caused by: "
_NO_CODE = "No module named 'pipelines'"
_CODE_IS_MISSING = (
    "the workers lack the package: build their image with it (deploy/README.md, Workers), or send "
    "it with --setup_file=./setup.py"
)
_AROUND = re.compile(
    r" \[while running .*\]$|^pipelines\.command\.cli\.\w+: |^Pipeline \S+ failed in state \w+: "
)
_EXCEPTION_LINE = re.compile(r"[A-Za-z_][\w.]*: .+")


def reason(error: BaseException) -> str:
    """Why a job failed, in one line: runners hand on tracebacks as text."""
    if isinstance(error, grpc.Call):
        return f"the job service is lost ({error.details()})"
    told = store_reason(error) if is_store_error(error) else str(error)
    lines = [line.strip() for line in told.splitlines()]
    if broken := [line for line in lines if line.startswith("details = ")]:
        return f"the job service lost a worker ({broken[-1].removeprefix('details = ')})"
    if _TRACEBACK in told:
        after = told.rpartition(_TRACEBACK)[2].splitlines()
        lines = [line.strip() for line in itertools.takewhile(_is_no_java, after)]
        raised = [line for line in lines if _EXCEPTION_LINE.match(line)]
        lines = raised[-1:] or list(filter(None, lines))[-1:]
    elif any(line.startswith("at ") for line in lines):
        caused = [line for line in lines if line.startswith(_CAUSED_BY)]
        lines = [line.removeprefix(_CAUSED_BY) for line in caused[-1:]] or lines[:1]
    text = " ".join(filter(None, lines)) or repr(error)
    return _CODE_IS_MISSING if _NO_CODE in text else _AROUND.sub("", text)


def _is_no_java(line: str) -> bool:
    """Java's stack goes on where the text of a worker's traceback ends."""
    return not line.strip().startswith(("at ", _CAUSED_BY))
