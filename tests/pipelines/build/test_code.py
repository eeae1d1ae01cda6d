import pickle

import pytest

from pipelines.build import code
from pipelines.build.transforms import Crawl, Deal
from pipelines.command.cli import WorkError


def test_a_worker_with_the_drivers_code_gets_the_job() -> None:
    received = pickle.loads(pickle.dumps(Deal([(0, ["train"])])))
    assert received.process(b"") == [(0, ["train"])]


@pytest.mark.parametrize("name", ["Python", "apache-beam", "imagenet-superres"])
def test_a_worker_with_another_version_says_so_and_unpickles_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Deal([])
    job.__dict__["new"] = Crawl  # what an older image may lack
    sent = pickle.dumps(job)
    here = dict(code.identity())
    monkeypatch.setattr(code, "identity", lambda: here | {name: "0.0.9"})
    monkeypatch.delattr("pipelines.build.transforms.Crawl")
    said = f"the workers run {name} 0.0.9, the driver {here[name]}: ".replace("(", r"\(")
    with pytest.raises(WorkError, match=said.replace(")", r"\)")):
        pickle.loads(sent)
