"""A training on two hosts with addresses of their own, one of them killed, then cut off."""

from pathlib import Path

import pytest

from tests.support.build import run


@pytest.mark.slow
@pytest.mark.usefixtures("namespaces")
def test_a_worker_lost_twice_changes_no_bit_of_the_result(embedded: Path) -> None:
    result = run("benchmarks/two_workers.sh", embedded, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("failed: another worker is gone; start all of them again") == 3
    assert result.stdout.splitlines()[-1].endswith("are equal, bit for bit")
