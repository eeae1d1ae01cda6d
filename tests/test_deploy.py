"""What is in deploy/ fits together, and the commands in it are ones that there are."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import __version__
from pipelines.arguments import parser
from pipelines.build.engine import Engine, with_option_file
from tests.support import REPOSITORY
from tests.support.build import run

DEPLOY = REPOSITORY / "deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))
PAGES = sorted(DEPLOY.glob("*.md"))  # their commands: tests/test_docs.py
JOBS = sorted(path for path in DEPLOY.iterdir() if path.suffix in (".sbatch", ".cron", ".service"))
SCRIPTS = [REPOSITORY / ".ci/run", *DEPLOY.glob("*.sbatch"), *REPOSITORY.glob("benchmarks/*.sh")]


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def containers(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "image" in value and "name" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from containers(part)


@cache
def help_of(module: str) -> str:
    told = run(sys.executable, "-m", module, "--help")
    assert told.returncode == 0, f"python -m {module}: {told.stderr}"
    return told.stdout


def check_commands(text: str) -> None:
    """Each `python -m MODULE --option …` names a module of ours and options that it has."""
    text = text.replace("\\\n", " ")
    for module, rest in re.findall(
        r"-m ((?:pipelines|trainer|evaluation)[\w.]*)([^\n`;&)]*)", text
    ):
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", rest):
            if not (module == "pipelines" and "_" in option):  # one of Beam's
                assert option in help_of(module), f"{module} has no {option}"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_read_and_their_commands_are_ones_that_there_are(path: Path) -> None:
    assert all("kind" in document for document in documents(path))
    for container in containers(documents(path)):
        check_commands(" ".join([*container.get("command", ()), *container.get("args", ())]))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_name_files_that_there_are(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([\w.-]+)(?:#\w+)?\)", text):
        assert (DEPLOY / target).exists(), target
    for name in re.findall(r"`(?:deploy/)?([\w-]+\.(?:options|yaml|sbatch|cron))`", text):
        assert (DEPLOY / name).exists() or name in ("my.options", "NAME.options"), name
    for runner in re.findall(r"RUNNER=([a-z]\w+)\b(?!\.)", text):
        assert (DEPLOY / f"{runner}.options").exists(), runner


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_jobs_run_commands_that_there_are(path: Path) -> None:
    check_commands(path.read_text())


def test_the_drivers_job_says_what_the_driver_understands() -> None:
    (container,) = containers(documents(DEPLOY / "driver-kubernetes.yaml"))
    assert container["command"] == ["python", "-m", "pipelines"]
    options, rest = parser().parse_known_args(with_option_file(container["args"]))
    engine = Engine.of(options.runner, rest)
    assert engine.cluster and engine.cluster.address == "http://superres-rest:8081"


def test_versions_are_pinned_and_are_the_same_everywhere() -> None:
    texts = {path.name: path.read_text() for path in DEPLOY.iterdir()}
    found = re.findall(r"(\S*superres[\w/-]*worker):([\w.]+)", "\n".join(texts.values()))
    assert {tag for _, tag in found} == {__version__}
    setup = (REPOSITORY / "setup.py").read_text()
    (beam,) = set(re.findall(r"beam_python\$\{PYTHON\}_sdk:(\d+\.\d+)\.\d+", texts["Dockerfile"]))
    assert f"apache-beam>={beam}," in setup
    jars = re.findall(r"job-server-(\d+\.\d+)\.\d+\.jar", "\n".join(texts.values()))
    assert set(jars) == {beam}
    for image in re.findall(r"^\s*image: (\S+)", "\n".join(texts.values()), re.MULTILINE):
        if not image.startswith("imagenet-superres:"):
            assert re.search(r":\d+\.\d+(\.\d+)?$", image), image


@pytest.mark.parametrize("name", ["flink", "flink2"])
def test_slots_crawlers_and_processes_agree(name: str) -> None:
    values = dict(
        argument.removeprefix("--").split("=")
        for argument in with_option_file(["--runner", name])
        if "=" in argument
    )
    (cluster,) = documents(DEPLOY / "flink-kubernetes.yaml")
    slots = cluster["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    managers = cluster["spec"]["taskManager"]["replicas"]
    assert values["sdk_worker_parallelism"] == slots
    assert values["parallelism"] == values["crawlers"] == str(int(slots) * managers)
    if name == "flink":
        version = values["flink_version"]
        assert cluster["spec"]["image"].startswith(f"flink:{version}.")
        assert cluster["spec"]["flinkVersion"] == f"v{version.replace('.', '_')}"


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip(f"no {name}")
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts(path: Path) -> None:
    checked = run(tool("shellcheck"), "--severity=warning", path)
    assert checked.returncode == 0, checked.stdout


def test_manifests_are_ones_that_kubernetes_knows() -> None:
    how = ["-strict", "-ignore-missing-schemas"]  # the operator's own kinds
    checked = run(tool("kubeconform"), *how, *MANIFESTS)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_the_workers_image_is_built_and_starts() -> None:
    docker = tool("docker")
    if run(docker, "info").returncode:
        pytest.skip("no Docker daemon")
    if "DEPLOY_CHECK_IMAGE" not in os.environ:
        pytest.skip("set DEPLOY_CHECK_IMAGE to build the workers' image, which takes minutes")
    name = "superres-worker:deploy-check"
    built = subprocess.run(
        [docker, "build", "-f", DEPLOY / "Dockerfile", "-t", name, REPOSITORY], check=False
    )
    assert built.returncode == 0
    told = run(
        docker, "run", "--rm", "--entrypoint", "python", name, "-m", "pipelines", "--version"
    )
    assert told.stdout.strip() == f"imagenet-superres {__version__}"


def test_there_is_one_version() -> None:
    tags = {
        tag
        for path in DEPLOY.iterdir()
        for tag in re.findall(r"(?:worker|imagenet-superres):([0-9][\w.]*)", path.read_text())
    }
    (cited,) = re.findall(r"^version: (.+)$", (REPOSITORY / "CITATION.cff").read_text(), re.M)
    headings = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    newest = next(heading for heading in headings if heading != "Unreleased")
    assert {*tags, cited, newest} == {__version__}
