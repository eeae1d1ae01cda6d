import json

import pytest

from pipelines.dataset.options import DatasetOptions, Degradation


@pytest.mark.parametrize(
    "options",
    [
        DatasetOptions(),
        DatasetOptions(
            wnids=("n01440764",),
            limit=3,
            scales=(2,),
            degradation=Degradation.BICUBIC,
            splits={"train": 1.0, "validation": 0.0, "test": 0.0},
            robots=False,
            allow_hosts=("localhost",),
        ),
    ],
)
def test_options_survive_json(options: DatasetOptions) -> None:
    assert DatasetOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(
    "change", [{"scales": 3}, {"degradation": "worse"}, {"unknown": 1}], ids=lambda c: next(iter(c))
)
def test_other_json_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        DatasetOptions.from_json(DatasetOptions().to_json() | change)
