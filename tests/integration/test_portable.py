"""The data build on a portable cluster: Beam's job service, boot program and staged package.

One module, since all its jobs install their package into one environment of the workers.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

from pipelines.build.cluster import RemoteJob
from pipelines.build.job_service import JobService
from pipelines.build.transforms import BuildDataset, Job
from pipelines.crawl.options import CrawlOptions
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import DatasetOptions
from pipelines.lists.list_file import Source
from pipelines.lists.plan import Plan
from tests.support import REPOSITORY
from tests.support.build import examples, run, wait_for
from tests.support.services import go_tool

StartBuild = Callable[..., Any]


def check_same(output: Path, embedded: Path) -> None:
    assert examples(output) == examples(embedded)
    manifests = [json.loads((path / "dataset.json").read_text()) for path in (output, embedded)]
    assert manifests[0] == manifests[1]
    assert {path.name for path in output.iterdir()} == {path.name for path in embedded.iterdir()}


def graph(num_shards: int) -> beam_runner_api_pb2.Pipeline:
    """The build's graph as a runner gets it."""
    shards = {f"train-{n:05}-of-{num_shards:05}": 5000 for n in range(num_shards)}
    folder = DatasetFolder("/nowhere")
    source = {"sha256": "aa", "lines": 5000 * num_shards, "rejected": {}}
    plan = Plan(DatasetOptions(), source, shards)
    job = Job(folder, plan, CrawlOptions(crawlers=100), Source("list"))
    pipeline = beam.Pipeline()
    _ = pipeline | BuildDataset(job)
    proto: beam_runner_api_pb2.Pipeline = pipeline.to_runner_api()
    return proto


def test_the_graph_needs_nothing_that_batch_runners_lack() -> None:
    proto = graph(num_shards=3)
    assert not proto.requirements  # splittable or stateful DoFns would be named here
    bounded = beam_runner_api_pb2.IsBounded.BOUNDED
    assert all(p.is_bounded == bounded for p in proto.components.pcollections.values())
    steps = 0
    for transform in proto.components.transforms.values():
        assert transform.spec.urn != "beam:transform:read:v1"
        if transform.spec.urn == "beam:transform:pardo:v1":
            steps += 1
            step = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            assert not step.timer_family_specs
            assert not step.state_specs
            assert not step.side_inputs
            assert not step.restriction_coder_id
            assert not step.requires_time_sorted_input
    assert steps >= 5


def test_workers_are_started_for_five_stages() -> None:
    """Deal, crawl, settle, finish, manifest: a cluster takes ten seconds for each."""
    urns = common_urns.primitives
    fused = translations.optimize_pipeline(
        graph(num_shards=3),
        phases=translations.standard_optimize_phases(),
        known_runner_urns=frozenset({urns.FLATTEN.urn, urns.IMPULSE.urn, urns.GROUP_BY_KEY.urn}),
        partial=False,
    )
    top = [fused.components.transforms[name] for name in fused.root_transform_ids]
    assert [t.spec.urn for t in top].count("beam:runner:executable_stage:v1") == 5


def test_the_graph_of_the_whole_list_fits_into_a_message() -> None:
    assert len(graph(num_shards=2_900).SerializeToString()) < 4 << 20


@pytest.mark.slow
def test_the_same_bytes_as_embedded_and_no_picture_between_the_stages(
    cluster: Any,
    photo_site: Any,
    start_build: StartBuild,
    embedded: Path,
    worker_python: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "set"
    before = cluster.bytes_through
    options = [*cluster.options, "--setup_file=./setup.py"]
    start_build(photo_site.list, output, "--crawlers", "2", *options).finish()
    check_same(output, embedded)
    # The package, heartbeats and logs are among them; weights that ship in it do not count.
    weights = (path.stat().st_size for path in (REPOSITORY / "trainer" / "weights").iterdir())
    through = cluster.bytes_through - before - sum(weights)
    assert through < photo_site.num_bytes / 8
    sizes = [path.stat().st_size for path in (output / "examples").iterdir()]
    assert through < sum(sizes) / 2
    # The worker had the staged package, and nothing that only training needs.
    names = ["pipelines", "tensorflow", "tensorflow_io", "keras", "skimage", "matplotlib"]
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    found = subprocess.run(
        [worker_python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "['pipelines']"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """In place of --setup_file, whose package the workers of each job would compile anew."""
    directory = tmp_path_factory.mktemp("package")
    made = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, REPOSITORY)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = directory.glob("*.whl")
    return f"--extra_package={wheel}"


@pytest.fixture
def begun(
    cluster: Any, package: str, photo_site: Any, start_build: StartBuild, tmp_path: Path
) -> Iterator[tuple[Any, Path]]:
    """A build that has fetched all shards but the one of a held picture, and its folder."""
    output = tmp_path / "set"
    photo_site.held.add(photo_site.paths[5])
    # One crawler: Prism may give two in one bundle, one after the other.
    build = start_build(photo_site.list, output, "--crawlers", "1", *cluster.options, package)
    plan = output / "plan" / "shards.json"
    build.wait_for(plan.exists)
    shards = json.loads(plan.read_text())["shards"]
    build.wait_for(lambda: len(DatasetFolder(str(output)).attempts()) == len(shards) - 1)
    yield build, output
    photo_site.held.clear()


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_is_started_again(
    begun: tuple[Any, Path], cluster: Any, photo_site: Any, embedded: Path
) -> None:
    build, output = begun
    (worker,) = cluster.workers()
    before = photo_site.asked()
    os.kill(worker, signal.SIGKILL)
    photo_site.held.clear()
    errors = build.finish()
    (failure,) = (line for line in errors.splitlines() if "is started again" in line)
    assert "worker disconnected" in failure
    assert "Traceback" not in errors
    check_same(output, embedded)
    assert 0 < (photo_site.asked() - before).total() < len(photo_site.paths)


@pytest.mark.slow
def test_a_lost_job_service_is_a_clear_failure_and_the_same_command_completes(
    begun: tuple[Any, Path],
    cluster: Any,
    package: str,
    photo_site: Any,
    start_build: StartBuild,
    embedded: Path,
) -> None:
    build, output = begun
    cluster.job_service.kill()
    errors = build.end()
    assert build.process.returncode == 1
    assert errors.splitlines()[-1].startswith("failed: the job service is lost")
    assert not (output / "dataset.json").exists()
    photo_site.held.clear()
    before = photo_site.asked()
    cluster.start_job_service()
    start_build(photo_site.list, output, "--crawlers", "2", *cluster.options, package).finish()
    check_same(output, embedded)
    assert 0 < (photo_site.asked() - before).total() < len(photo_site.paths)


@pytest.mark.slow
def test_interrupted_the_job_is_cancelled(begun: tuple[Any, Path], cluster: Any) -> None:
    build, _ = begun
    build.process.send_signal(signal.SIGINT)
    errors = build.end()
    assert build.process.returncode == 3, errors
    wait_for(lambda: not cluster.workers(), lambda: "the worker goes on")


@pytest.mark.slow
def test_cancelled_from_outside_the_driver_ends_and_starts_nothing_again(
    begun: tuple[Any, Path], cluster: Any
) -> None:
    build, output = begun
    job = json.loads((output / "lease.json").read_text())["remembered"]
    service = JobService(job["address"])
    assert service.stop(RemoteJob(job["name"], job["id"]))
    errors = build.end()
    assert build.process.returncode == 3, errors
    last = errors.splitlines()[-1]
    assert last.startswith(f"interrupted: job {job['id']} at {service.address} was cancelled")
    assert "is started again" not in errors
    assert not (output / "lease.json").exists()


@pytest.mark.slow
def test_the_job_completes_without_its_driver(
    begun: tuple[Any, Path], photo_site: Any, embedded: Path
) -> None:
    build, output = begun
    build.process.kill()
    build.process.wait()
    photo_site.held.clear()
    wait_for((output / "dataset.json").exists, lambda: "no dataset.json")
    assert examples(output) == examples(embedded)


@pytest.mark.slow
@pytest.mark.usefixtures("namespaces")
def test_a_host_that_is_cut_off_is_a_clear_failure_and_the_same_command_completes(
    shared_data: Path, worker_python: Path
) -> None:
    for name in ("container", "versitygw"):
        go_tool(name)
    photos = shared_data / "imagenet" / "photos"
    result = run("benchmarks/three_hosts.sh", photos, worker_python, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "failed: no crawler has reported for" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("verified")
