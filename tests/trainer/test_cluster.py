import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command.cli import UsageError
from tests.support import REPOSITORY
from trainer.cluster import expand, tf_config


@pytest.mark.parametrize(
    ("nodes", "hosts"),
    [
        ("node7", ["node7"]),
        ("node1,node2", ["node1", "node2"]),
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("gpu[08-10,12]", ["gpu08", "gpu09", "gpu10", "gpu12"]),
        ("a[1-2]-ib,login,b[3]", ["a1-ib", "a2-ib", "login", "b3"]),
    ],
)
def test_slurms_lists_of_nodes(nodes: str, hosts: list[str]) -> None:
    assert expand(nodes) == hosts


@pytest.mark.parametrize("nodes", ["", ",", "a,", "a[", "a[]", "a[2-1]", "a[1-]", "a[1-2-3]", "a]"])
def test_what_is_no_list_of_nodes(nodes: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        expand(nodes)


@given(st.lists(st.from_regex(r"\A[a-z][a-z0-9-]*\Z"), min_size=1))
def test_plain_names_stay(hosts: list[str]) -> None:
    assert expand(",".join(hosts)) == hosts


@given(st.integers(0, 999), st.integers(0, 50), st.integers(1, 5))
def test_a_range_has_all_its_numbers_with_their_zeros(first: int, count: int, width: int) -> None:
    last = first + count
    hosts = expand(f"n[{first:0{width}}-{last:0{width}}]")
    assert [int(host[1:]) for host in hosts] == list(range(first, last + 1))
    assert all(len(host) > width for host in hosts)


def test_slurm() -> None:
    environment = {
        "SLURM_PROCID": "3",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_NODELIST": "gpu[1-2]",
        "TRAINER_PORT": "7000",
    }
    assert json.loads(tf_config(environment)) == {
        "cluster": {"worker": ["gpu1:7000", "gpu1:7001", "gpu2:7000", "gpu2:7001"]},
        "task": {"type": "worker", "index": 3},
    }
    environment["SLURM_STEP_NODELIST"] = "gpu2,gpu3"
    assert "gpu1" not in tf_config(environment)


@pytest.mark.parametrize(
    "index", [{"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "x-7-abc"}, {"HOSTNAME": "superres-1"}]
)
def test_kubernetes(index: dict[str, str]) -> None:
    config = json.loads(tf_config({"WORKER_HOSTS": "superres-0.s,superres-1.s", **index}))
    assert config["cluster"]["worker"] == ["superres-0.s:12345", "superres-1.s:12345"]
    assert config["task"]["index"] == 1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "neither Slurm's"),
        ({"SLURM_PROCID": "0"}, "SLURM_JOB_NODELIST is not in the environment"),
        ({"SLURM_PROCID": "2", "SLURM_JOB_NODELIST": "a[1-2]"}, "process 2, but there are 2"),
        ({"SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "a["}, "not a list of nodes"),
        ({"WORKER_HOSTS": "a,b", "HOSTNAME": "laptop"}, "laptop"),
    ],
)
def test_an_environment_that_does_not_say(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tf_config(environment)


def test_the_shell_line() -> None:
    code = 'eval "$($0 -m trainer.cluster)" && printf %s "$TF_CONFIG"'
    environment = {"WORKER_HOSTS": "a", "HOSTNAME": "x-0", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        ["sh", "-c", code, sys.executable],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout) == json.loads(tf_config(environment))
