"""What the tests share beyond fixtures: a web to crawl, builds of it, datasets written by hand."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_DATA = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
