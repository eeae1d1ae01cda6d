from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.aws.clients.s3.messages import S3ClientError
from apache_beam.options.pipeline_options import DirectOptions, PortableOptions, StandardOptions

from pipelines.arguments import parser
from pipelines.build.build import runners
from pipelines.build.runners import (
    EMBEDDED,
    beam_options,
    is_embedded,
    reason,
    refuse_local_paths,
    with_option_file,
)
from pipelines.command.cli import UsageError, WorkError


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


def test_a_runners_name_stands_for_its_option_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "# ours\n--runner=FlinkRunner\n--crawlers 8  # slots\n--flink_master='a b:1'\n"
    (tmp_path / "flink.options").write_text(text)
    monkeypatch.setattr(runners, "OPTION_FILES", tmp_path)
    assert with_option_file(["--urls", "x", "--runner", "flink", "--crawlers", "2"]) == [
        *("--runner=FlinkRunner", "--crawlers", "8", "--flink_master=a b:1"),
        *("--urls", "x", "--crawlers", "2"),
    ]
    for arguments in (["--runner=FlinkRunner"], ["--urls", "x"], ["--runner"], ["--help"]):
        assert with_option_file(arguments) == arguments


OPTION_FILES = sorted(path.stem for path in runners.OPTION_FILES.glob("*.options"))


def test_every_runner_has_an_option_file() -> None:
    assert OPTION_FILES == ["dataflow", "flink", "portable", "prism", "spark"]


@pytest.mark.parametrize("name", OPTION_FILES)
def test_beam_knows_what_an_option_file_says(name: str) -> None:
    options, rest = parser().parse_known_args([*with_option_file(["--runner", name]), "--output=x"])
    beam_options(rest, options.runner)
    assert options.runner.endswith("Runner")
    assert options.crawlers


def while_handling(cause: Exception, error: Exception) -> Exception:
    error.__context__ = cause
    return error


TRACEBACK = """bundle inst002 failed:Traceback (most recent call last):
  File "common.py", line 1512, in process
    yield from self.read()
pipelines.command.cli.WorkError: the decoder cannot start: status 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "sdk_worker.py", line 310, in _execute
    response = task()
               ^^^^^^
pipelines.command.cli.WorkError: the decoder cannot start: status 1 [while running 'Crawl']
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(TRACEBACK), "the decoder cannot start: status 1"),
        (RuntimeError("worker\ndisconnected"), "worker disconnected"),
        (
            RuntimeError('<RPC that terminated with:\n\tdetails = "Socket closed"\n>'),
            'the job service lost a worker ("Socket closed")',
        ),
        (RuntimeError(), "RuntimeError()"),
        (S3ClientError("no route [while running 'Crawl']", None), "no route"),
        (while_handling(KeyError("photo"), AttributeError("a bug")), "a bug"),
    ],
)
def test_a_jobs_failure_in_one_line(error: Exception, said: str) -> None:
    assert reason(error) == said


def test_a_job_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "_JOB_SERVICE_ANSWERS_S", 0.1)
    options = beam_options(["--job_endpoint=127.0.0.1:1"], "PortableRunner")
    with pytest.raises(WorkError, match=r"no job service answers at 127.0.0.1:1"):
        runners.run(beam.Create([1]), options, 1)


def test_a_driver_follows_its_job_for_longer_than_five_minutes() -> None:
    options = beam_options([], "PortableRunner")
    assert options.view_as(PortableOptions).job_server_timeout > 30 * 86_400
