import pytest

from pipelines.command.cli import UsageError
from trainer.dataset import Split, load_manifest, windows


def test_an_empty_split_is_refused_with_the_splits_to_use(dataset):
    manifest = load_manifest(str(dataset))
    with pytest.raises(UsageError, match=r"the test split .* --splits"):
        Split.of(manifest, str(dataset), "test")


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a finished dataset"):
        load_manifest(str(tmp_path))


@pytest.mark.parametrize("first", [0, 7, 10, 25])
def test_as_many_crops_are_in_the_windows_as_are_wanted(first, monkeypatch):
    monkeypatch.setattr("trainer.dataset.WINDOW_CROPS", 4)
    split = Split(("a", "b", "c"), (3, 2, 5), 48)
    orders = [window.order.tolist() for window in windows(split, 0, first, 13)]
    assert sum(map(len, orders)) == 13
    assert all(len(set(order)) == len(order) > 0 for order in orders)
