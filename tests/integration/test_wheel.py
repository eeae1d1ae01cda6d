"""The wheel, installed outside the clone: the commands work from it alone."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
DISTRIBUTED = ["pipelines", "trainer", "evaluation", "deploy"]
BUILD_FILES = ["setup.py", "pyproject.toml", "README.md", "LICENSE"]

pytestmark = pytest.mark.slow


def run(
    command: Sequence[str | Path], folder: Path, environment: dict[str, str], status: int = 0
) -> str:
    """Standard error of a command in a folder outside the clone."""
    clean = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The source distribution, unpacked; its wheel lies beside it."""
    home = tmp_path_factory.mktemp("package")
    clone = home / "clone"
    for name in DISTRIBUTED:
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(REPOSITORY / name, clone / name, symlinks=True, ignore=ignored)
    for name in BUILD_FILES:
        shutil.copy(REPOSITORY / name, clone)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", home]
    run([*build, clone], home, environment)  # the wheel is built from the source distribution
    with tarfile.open(next(home.glob("*.tar.gz"))) as archive:
        archive.extractall(home, filter="data")
    return next(path for path in home.glob("imagenet_superres-*") if path.is_dir())


def installed(wheel: Path, directory: Path) -> Path:
    """The Python of an environment that has the wheel, and what this one has but the clone.

    A folder that a .pth file names is searched, but its own .pth files are not read: so an
    editable installation there is not seen.
    """
    venv.create(directory, symlinks=True)
    packages = sysconfig.get_path("purelib", "venv", {"base": directory})
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, f"--target={packages}", wheel], check=True)
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(packages, "dependencies.pth").write_text("\n".join(sorted(here)))
    return directory / "bin" / "python"


@pytest.fixture(scope="module")
def python(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheel = next(source.parent.glob("*.whl"))
    return installed(wheel, tmp_path_factory.mktemp("environment") / "env")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[:130, :140]
    for number in range(12):
        waves = [np.sin((x * (number + 2 + band) + y * y / (3 + number)) / 40) for band in range(3)]
        pixels = (np.stack(waves, axis=-1) * 127 + 128).astype(np.uint8)
        Image.fromarray(pixels).save(directory / f"{number}.png")
    return directory


def build_dataset(
    python: Path, photos: Path, folder: Path, environment: dict[str, str]
) -> dict[str, bytes]:
    """The examples of a dataset folder/data."""
    command = [python, "-m", "pipelines", "--images", photos, "--output", "data"]
    options = ["--crop-size", "96", "--num-shards", "2", "--crawlers", "1"]
    splits = ["--splits", "train=0.5,validation=0.25,test=0.25"]
    run([*command, *options, *splits], folder, environment)
    return {path.name: path.read_bytes() for path in (folder / "data" / "examples").iterdir()}


def test_the_commands_work_from_the_wheel(
    python: Path, photos: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    where = "import pipelines, trainer, evaluation as e; print(pipelines.__path__, e.__path__)"
    found = subprocess.check_output([python, "-c", where], cwd=tmp_path, text=True)
    assert str(REPOSITORY) not in found
    build_dataset(python, photos, tmp_path, environment)
    train = ["--model", "srcnn", "--data", "data", "--output", "run", "--steps", "5"]
    commands = [
        ["pipelines.verify", "data"],
        ["trainer", *train, "--batch-size", "4"],
        ["evaluation", "--data", "data", "--models", "bicubic", "run", "--output", "results.csv"],
        ["evaluation.upscale", str(photos / "0.png"), "large.png", "--model", "run"],
    ]
    for module, *arguments in commands:
        run([python, "-m", module, *arguments], tmp_path, environment)
    assert ",article,run," in (tmp_path / "results.csv").read_text()
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (280, 260)


def test_the_runners_options_are_in_the_wheel(
    python: Path, photos: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    build = [python, "-m", "pipelines", "--images", photos, "--output", "data", "--runner"]
    told = run([*build, "prism"], tmp_path, environment, status=2)
    assert "--setup_file=./setup.py is not here" in told  # as prism.options has it
    far = "--flink_master=http://10.0.0.1:8081"
    told = run([*build, "flink", far], tmp_path, environment, status=2)
    assert "the workers of --runner FlinkRunner are on other machines" in told


def test_without_a_compiler_the_bytes_are_the_same(
    source: Path, python: Path, photos: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path]
    run([*build, source], tmp_path, environment | {"CC": "false"})
    wheel = next(tmp_path.glob("*.whl"))
    assert [compiled(wheel), compiled(next(source.parent.glob("*.whl")))] == [False, True]
    pure = installed(wheel, tmp_path / "env")
    for name in ("c", "pure"):
        (tmp_path / name).mkdir()
    in_c = build_dataset(python, photos, tmp_path / "c", environment)
    assert in_c
    assert build_dataset(pure, photos, tmp_path / "pure", environment) == in_c


def compiled(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as archive:
        return any(name.endswith(".so") for name in archive.namelist())
