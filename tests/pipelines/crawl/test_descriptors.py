import os
import subprocess
import sys
from pathlib import Path

import pytest

OPEN_MANY = """
import resource, sys
from pipelines.crawl.descriptors import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
raise_descriptor_limit()
files = [open("/dev/null") for _ in range(200)]
"""


@pytest.mark.parametrize(("soft", "hard", "fits"), [(64, 512, True), (64, 64, False)])
def test_as_many_files_are_open_as_the_hard_limit_allows(soft: int, hard: int, fits: bool) -> None:
    command = [sys.executable, "-c", OPEN_MANY, str(soft), str(hard)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True)
    assert (done.returncode == 0) is fits
    assert fits or "Too many open files" in done.stderr
