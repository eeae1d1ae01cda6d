"""A dataset folder with files that hold nothing but their own paths."""

from pathlib import Path

from pipelines.dataset.folder import DatasetFolder


def publish(folder: DatasetFolder, *paths: str) -> None:
    for path in paths:
        folder.publish_bytes(path, path.encode())


def files(folder: DatasetFolder) -> list[str]:
    """All that is in it."""
    root = Path(folder.root)
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
