import pytest
from apache_beam.options.pipeline_options import DirectOptions, PortableOptions, StandardOptions

from pipelines.cli import UsageError
from pipelines.runners import EMBEDDED, beam_options, is_embedded, refuse_local_paths


@pytest.mark.parametrize("runner", ["DirectRunner", EMBEDDED])
def test_the_embedded_runner_is_always_the_one_that_needs_no_download(runner: str) -> None:
    assert is_embedded(runner)
    assert beam_options([], runner).view_as(StandardOptions).runner == EMBEDDED


def test_beams_options_reach_beam() -> None:
    flags = ["--direct_num_workers", "3", "--environment_type=EXTERNAL", "--job_endpoint=a:1"]
    options = beam_options(flags, "PortableRunner")
    assert not is_embedded("PortableRunner")
    assert options.view_as(StandardOptions).runner == "PortableRunner"
    assert options.view_as(DirectOptions).direct_num_workers == 3
    assert options.view_as(PortableOptions).environment_type == "EXTERNAL"


@pytest.mark.parametrize("flags", [["--no-such-option", "3"], ["stray"], ["--limits=3"]])
def test_what_beam_does_not_know_is_refused(flags: list[str]) -> None:
    with pytest.raises(UsageError, match=f"unknown option {flags[0]}"):
        beam_options(flags, EMBEDDED)


def test_a_wrong_value_of_beams_is_refused() -> None:
    with pytest.raises(UsageError, match="--direct_num_workers"):
        beam_options(["--direct_num_workers=many"], EMBEDDED)


def test_a_remote_runner_refuses_local_paths() -> None:
    with pytest.raises(UsageError, match="out/data is local, but the workers of --runner Flink"):
        refuse_local_paths("Flink", [], "gs://b/list", "out/data")
    with pytest.raises(UsageError, match="list is local"):
        refuse_local_paths("Flink", ["--job_endpoint=10.0.0.1:99"], "list", "s3://b/d")
    refuse_local_paths("Flink", [], "https://a.com/list", "s3://b/d")


@pytest.mark.parametrize(
    "flags",
    [
        ["--job_endpoint=localhost:8073"],
        ["--job_endpoint", "127.0.0.1:8073"],
        ["--flink_master", "http://localhost:8081"],
    ],
)
def test_a_job_service_on_this_machine_sees_local_paths(flags: list[str]) -> None:
    refuse_local_paths("PortableRunner", flags, "list", "out")
