"""The examples of deploy/ that schedule the rerun."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation.benchmark import main
from trainer.export import ModelDescription
from trainer.models import NETWORKS, Options

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHECKOUT = "/srv/imagenet-superres"


def cron_line() -> str:
    lines = (DEPLOY / "benchmark.cron").read_text().splitlines()
    (line,) = [line for line in lines if not line.startswith("#")]
    assert "%" not in line  # cron makes a line's end of it
    return line.split(maxsplit=5)[5]


def command_of(text: str) -> list[str]:
    """The rerun's arguments in a line of shell."""
    words = shlex.split(text)
    start = words.index("evaluation.benchmark") + 1
    return words[start : words.index(">")] if ">" in words else words[start:]


def test_all_examples_run_the_same_command() -> None:
    cronjob = yaml.safe_load((DEPLOY / "benchmark-cronjob.yaml").read_text())
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["command"] == ["python", "-m", "evaluation.benchmark"]
    service = (DEPLOY / "benchmark.service").read_text()
    (start,) = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    assert container["args"] == command_of(start) == command_of(cron_line())
    assert f"WorkingDirectory={CHECKOUT}" in service
    assert (DEPLOY / "Dockerfile.train").exists()


@pytest.mark.slow
def test_cron_is_silent_in_a_good_night_and_mails_a_bad_one(tmp_path, photos, monkeypatch):
    for name in ("evaluation", "trainer", "pipelines"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "pictures" / "set").mkdir(parents=True)
    photos["coffee"].resize((48, 48)).save(tmp_path / "pictures" / "set" / "coffee.png")
    for name in ("srcnn", "vdsr"):
        network = NETWORKS[name].from_options(Options(1, "9-1-5"))
        weights = network.initial_weights(np.random.default_rng(0))
        model = tmp_path / "runs" / name / "model"
        model.mkdir(parents=True)
        np.savez(model / "weights.npz", **weights)
        description = ModelDescription(name, "y", (2,), "bicubic")
        (model / "model.json").write_text(json.dumps(dataclasses.asdict(description)))
    monkeypatch.chdir(tmp_path)
    line = cron_line().replace(CHECKOUT, str(tmp_path))
    mail = night(line)
    assert "there is no baseline nightly/baseline.csv: --update-baseline begins one" in mail
    main([*command_of(line), "--update-baseline"])
    assert night(line) == ""
    assert (
        (tmp_path / "nightly" / "log.txt")
        .read_text()
        .endswith("0 not in the baseline, worst +0.000 dB\n")
    )


def night(line: str) -> str:
    """What cron would mail."""
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_crontab_keeps_what_it_has(tmp_path: Path) -> None:
    crontab = tmp_path / "crontab"
    crontab.write_text(
        f'#!/bin/sh\n[ "$1" = - ] && {{ cat > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/tab; }} '
        f"|| cat {tmp_path}/tab\n"
    )
    crontab.chmod(0o755)
    comments = (DEPLOY / "benchmark.cron").read_text().splitlines()
    (install,) = [line.lstrip("# ") for line in comments if line.endswith("| crontab -")]
    for has in ("0 1 * * * backup\n", None):
        if has:
            (tmp_path / "tab").write_text(has)
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-c", install], cwd=ROOT, env=environment, check=True)
        tab = (tmp_path / "tab").read_text().splitlines()
        assert tab[0] == "0 1 * * * backup"
        assert len(tab) == 2 and "evaluation.benchmark" in tab[1]
