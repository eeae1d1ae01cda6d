from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import DirectOptions, PortableOptions

from pipelines.arguments import parser
from pipelines.build import engine
from pipelines.build.engine import EMBEDDED, Engine, with_option_file
from pipelines.command.cli import UsageError


@pytest.mark.parametrize("runner", ["DirectRunner", EMBEDDED])
def test_the_embedded_runner_is_always_the_one_that_needs_no_download(runner: str) -> None:
    embedded = Engine.of(runner, silence_s=60)
    assert embedded.runner == EMBEDDED
    assert embedded.workers >= 1
    assert not embedded.outlives_driver
    assert embedded.silence_s == float("inf")


def test_a_cluster_has_its_own_workers_and_outlives_the_driver() -> None:
    cluster = Engine.of("FlinkRunner", silence_s=60)
    assert (cluster.runner, cluster.workers, cluster.outlives_driver) == ("FlinkRunner", 0, True)
    assert cluster.silence_s == 60


def test_beams_options_reach_beam() -> None:
    flags = ["--direct_num_workers", "3", "--environment_type=EXTERNAL", "--job_endpoint=a:1"]
    options = Engine.of("PortableRunner", flags).beam
    assert options.view_as(DirectOptions).direct_num_workers == 3
    assert options.view_as(PortableOptions).environment_type == "EXTERNAL"
    assert options.view_as(PortableOptions).job_endpoint == "a:1"


@pytest.mark.parametrize("flags", [["--no-such-option", "3"], ["stray"], ["--limits=3"]])
def test_what_beam_does_not_know_is_refused(flags: list[str]) -> None:
    with pytest.raises(UsageError, match=f"unknown option {flags[0]}"):
        Engine.of(EMBEDDED, flags)


def test_a_wrong_value_of_beams_is_refused() -> None:
    with pytest.raises(UsageError, match="--direct_num_workers"):
        Engine.of(EMBEDDED, ["--direct_num_workers=many"])


def test_a_remote_runner_refuses_local_paths() -> None:
    with pytest.raises(UsageError, match="out/data is local, but the workers of --runner Flink"):
        Engine.of("Flink").refuse_local_paths("gs://b/list", "out/data")
    for elsewhere in (
        ["--job_endpoint=localhost:99", "--job_endpoint=10.0.0.1:99"],
        ["--job_endpoint=localhost:99", "--environment_type=EXTERNAL", "--environment_config=a:5"],
        ["--spark_submit_uber_jar", "--spark_rest_url=http://localhost:6066"],
    ):
        with pytest.raises(UsageError, match="list is local"):
            Engine.of("Portable", elsewhere).refuse_local_paths("list", "s3://b/d")
    Engine.of("Flink").refuse_local_paths("https://a.com/list", "s3://b/d")


@pytest.mark.parametrize(
    "flags",
    [
        ["--job_endpoint=localhost:8073"],
        ["--job_endpoint=jobs.example.org:8073", "--job_endpoint", "127.0.0.1:8073"],
    ],
)
def test_a_job_service_on_this_machine_sees_local_paths(flags: list[str]) -> None:
    Engine.of("PortableRunner", flags).refuse_local_paths("list", "out")


def test_a_runners_name_stands_for_its_option_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "# ours\n--runner=FlinkRunner\n--crawlers 8  # slots\n--flink_master='a b:1'\n"
    (tmp_path / "flink.options").write_text(text)
    monkeypatch.setattr(engine, "OPTION_FILES", tmp_path)
    assert with_option_file(["--urls", "x", "--runner", "flink", "--crawlers", "2"]) == [
        *("--runner=FlinkRunner", "--crawlers", "8", "--flink_master=a b:1"),
        *("--urls", "x", "--crawlers", "2"),
    ]
    for arguments in (["--runner=FlinkRunner"], ["--urls", "x"], ["--runner"], ["--help"]):
        assert with_option_file(arguments) == arguments


def test_an_option_file_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "my.options"
    own.write_text("--runner=SparkRunner --crawlers 8")
    assert with_option_file(["--runner", str(own)]) == ["--runner=SparkRunner", "--crawlers", "8"]
    with pytest.raises(UsageError, match=r"--runner no\.options: there is no such file"):
        with_option_file(["--runner", "no.options"])
    own.write_text("--flink_master='a")
    with pytest.raises(UsageError, match=r"my.options: No closing quotation"):
        with_option_file(["--runner", str(own)])


def test_a_package_to_stage_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--setup_file=\./no/setup\.py is not here"):
        Engine.of("PortableRunner", ["--setup_file=./no/setup.py"])


OPTION_FILES = sorted(path.stem for path in engine.OPTION_FILES.glob("*.options"))


def test_every_runner_has_an_option_file() -> None:
    assert OPTION_FILES == ["dataflow", "flink", "flink2", "portable", "prism", "spark"]


@pytest.mark.parametrize("name", OPTION_FILES)
def test_beam_knows_what_an_option_file_says(name: str) -> None:
    options, rest = parser().parse_known_args([*with_option_file(["--runner", name]), "--output=x"])
    Engine.of(options.runner, rest)
    assert options.runner.endswith("Runner")
    assert options.crawlers


def test_a_driver_follows_its_job_for_longer_than_five_minutes() -> None:
    options = Engine.of("PortableRunner").beam
    assert options.view_as(PortableOptions).job_server_timeout > 30 * 86_400


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ("flnk", "--runner flnk is not known: did you mean flink?"),
        ("sparkrunnr", "did you mean SparkRunner?"),
        ("kubernetes", "--runner kubernetes is not known: it is dataflow, flink, "),
    ],
)
def test_a_runner_that_nobody_knows(runner: str, said: str) -> None:
    with pytest.raises(UsageError) as told:
        Engine.of(runner)
    assert said in str(told.value)


def test_what_beam_would_refuse_when_the_plan_is_written_is_refused_before() -> None:
    flags = ["--environment_type=LOOPBACK", "--environment_config=localhost:1"]
    with pytest.raises(UsageError, match="environment_config is not compatible"):
        Engine.of("FlinkRunner", flags).refuse_wrong_start(1)
