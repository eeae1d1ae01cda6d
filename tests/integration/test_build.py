"""python -m pipelines as a user runs it; what may disturb it is in test_reproducible."""

import json
from pathlib import Path

import pytest

from tests.support.build import command, run
from tests.support.site import LoopbackServer, crops, png

pytestmark = pytest.mark.slow

OPTIONS = ["--crop-size", "32", "--num-shards", "4", "--splits", "train=0.5,validation=0,test=0.5"]


def test_a_list_whose_every_url_fails_is_a_failure(server: LoopbackServer, tmp_path: Path) -> None:
    listed = tmp_path / "dead.txt"
    listed.write_text("".join(f"n01440764_{n}\t{server.url(f'/x{n}')}\n" for n in range(5)))
    options = [*OPTIONS, "--allow-host", "127.0.0.1", "--requests-per-host", "100000"]
    options += ["--crawlers", "1"]
    result = run(*command(listed, tmp_path / "set", *options))
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last == "failed: not one picture became an example: http_client_error 5"
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "set" / "dataset.json").exists()


def test_a_folder_of_pictures_needs_no_network(tmp_path: Path) -> None:
    for number, crop in enumerate(crops(8)):
        path = tmp_path / "pictures" / f"n0144076{number % 2}" / f"{number} é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(crop))
    output = tmp_path / "set"
    options = [*OPTIONS, "--wnids", "n01440760", "--crawlers", "1"]
    result = run(*command(tmp_path / "pictures", output, *options, option="--images"))
    assert result.returncode == 0, result.stderr
    described = json.loads((output / "dataset.json").read_text())
    assert described["outcomes"] == {"ok": 4}
    # Its limits are wider than for strangers' pictures.
    assert described["options"]["max_bytes"] == 200_000_000
    assert described["options"]["max_pixels"] == 120_000_000


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("crawlers", ["1", "2"])
def test_the_driver_may_be_a_containers_first_process(crawlers: str, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number, crop in enumerate(crops(8)):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(crop))
    options = [*OPTIONS, "--crawlers", crawlers]
    build = command(tmp_path / "pictures", tmp_path / "set", *options, option="--images")
    result = run("unshare", "--pid", "--fork", "--mount-proc", *build)
    assert result.returncode == 0, result.stderr
