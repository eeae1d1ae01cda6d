from pathlib import Path

import pytest

from pipelines.dataset.folder import DatasetFolder


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    """Empty, and not there yet."""
    return DatasetFolder(str(tmp_path / "data"))
