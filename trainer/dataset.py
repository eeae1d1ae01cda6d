"""A finished dataset's description, wherever the folder lies."""

from pipelines.command.cli import UsageError
from pipelines.dataset.manifest import MANIFEST_NAME, Manifest
from trainer import files


def load_manifest(directory: str) -> Manifest:
    """Raises UsageError where there is no finished dataset."""
    if files.is_local(directory):
        return Manifest.load(directory)
    path = files.join(directory, MANIFEST_NAME)
    try:
        return Manifest.parse(path, files.read(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read, is it a finished dataset? {error}") from None
