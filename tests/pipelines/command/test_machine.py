import errno
import os

import pytest

from pipelines.command.machine import CURES, machine_reason


@pytest.mark.parametrize("number", CURES)
def test_an_error_of_the_machine_is_told_with_its_cure(number: int) -> None:
    error = OSError(number, os.strerror(number), "/a")
    told = f"Traceback:\nOSError: {error} [while running 'x']\nmore"
    assert machine_reason(told) == f"{os.strerror(number)}: '/a': {CURES[number]}"


@pytest.mark.parametrize(
    "text", ["", "a bug", str(FileNotFoundError(errno.ENOENT, "no such file")), "Errno 24"]
)
def test_other_errors_are_none_of_the_machine(text: str) -> None:
    assert machine_reason(text) == ""
