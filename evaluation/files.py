"""Writing a file whole or not at all."""

import os
from pathlib import Path

from pipelines.command.cli import WorkError
from trainer import files


def write_whole(path: str, data: bytes) -> None:
    """Writes a local file under another name beside it first.

    Raises WorkError, leaving nothing.
    """
    try:
        if files.is_local(path):
            _write_local(Path(path), data)
        else:
            files.write(path, data)
    except OSError as error:
        raise WorkError(f"{path} cannot be written: {error.strerror or error}") from None


def _write_local(path: Path, data: bytes) -> None:
    # Two commands may write the same page.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
