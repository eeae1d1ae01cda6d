"""Writing a file whole or not at all."""

import os
from pathlib import Path

from pipelines.cli import WorkError


def write_whole(path: Path, data: bytes) -> None:
    """Writes under another name beside ``path`` first. Raises WorkError, leaving nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise WorkError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
