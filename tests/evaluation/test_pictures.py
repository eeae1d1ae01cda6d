import io
import shutil

import numpy as np
import pytest
from PIL import Image

from evaluation.pictures import (
    Picture,
    Unread,
    dataset_pictures,
    folder_pictures,
    read_picture,
)
from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.options import Degradation
from pipelines.pictures.degradation import degrade


def test_a_folder_gives_its_pictures_by_name(folder, photos):
    (folder / "notes.txt").write_text("no picture")
    pictures = folder_pictures(str(folder))
    assert len(pictures) == len(photos)
    assert [picture.name for picture in pictures] == [f"{name}.png" for name in sorted(photos)]
    assert np.array_equal(next(iter(pictures)).hr, np.asarray(photos["astronaut"]))


def test_stray_and_hidden_files_are_no_pictures(folder, photos):
    before = folder_pictures(str(folder))
    for name in ("._coffee.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"no picture")
    assert folder_pictures(str(folder)) == before


def test_the_identity_is_the_name_and_the_bytes(folder, tmp_path):
    before = folder_pictures(str(folder)).dataset
    assert before.startswith("shipped@")
    copy = shutil.copytree(folder, tmp_path / "copy" / "shipped")
    assert folder_pictures(str(copy)).dataset == before
    Image.open(folder / "coffee.png").rotate(90).save(folder / "coffee.png")
    assert folder_pictures(str(folder)).dataset != before


def test_a_dataset_gives_stored_lr_and_its_degradation(make_dataset, photos):
    directory = make_dataset(photos, scales=(2, 3), degradation=Degradation.BICUBIC)
    pictures = dataset_pictures(str(directory), "test")
    assert (pictures.scales, pictures.degradation) == ((2, 3), Degradation.BICUBIC)
    for picture, photo in zip(pictures, photos.values(), strict=True):
        assert np.array_equal(picture.hr, np.asarray(photo))
        expected = degrade(np.asarray(photo), [3], Degradation.BICUBIC)[3]
        assert np.array_equal(picture.lr[3], expected)


def test_a_datasets_identity_is_that_of_its_examples(dataset):
    before = dataset_pictures(str(dataset), "test").dataset
    text = (dataset / "dataset.json").read_text()
    (dataset / "dataset.json").write_text(text.replace('"outcomes": {}', '"outcomes": {"ok": 4}'))
    assert dataset_pictures(str(dataset), "test").dataset == before


def test_a_damaged_shard_is_told_from_one_that_cannot_be_read(dataset):
    shard = next((dataset / "examples").iterdir())
    data = shard.read_bytes()
    shard.write_bytes(data[:-100] + bytes(100))
    with pytest.raises(WorkError, match=f"{shard.name} is damaged.*rebuild the dataset"):
        list(dataset_pictures(str(dataset), "test"))
    shard.unlink()
    with pytest.raises(WorkError, match=f"{shard.name} cannot be read: [^;]*$"):
        list(dataset_pictures(str(dataset), "test"))


def test_a_folder_without_dataset_json_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no dataset\.json"):
        dataset_pictures(str(tmp_path), "test")


def test_an_empty_split_is_refused(dataset):
    with pytest.raises(UsageError, match=r"validation split .* has no example.*--splits"):
        dataset_pictures(str(dataset), "validation")


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no picture"):
        folder_pictures(str(tmp_path))
    with pytest.raises(UsageError, match="is not a local folder"):
        folder_pictures(str(tmp_path / "nowhere"))


def test_a_broken_record_is_named(dataset):
    path = next((dataset / "examples").iterdir())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(WorkError, match=rf"{path.name}.* cut off"):
        list(dataset_pictures(str(dataset), "test"))


def test_a_broken_picture_is_named(folder):
    (folder / "coffee.png").write_bytes((folder / "coffee.png").read_bytes()[:2000])
    pictures = folder_pictures(str(folder))
    with pytest.raises(WorkError, match=r"coffee\.png is not a readable picture"):
        list(pictures)
    read = [picture for _, picture in pictures.read()]
    assert [type(picture) for picture in read] == [Picture, Picture, Unread, Picture]


def test_pictures_keep_their_numbers_when_some_are_left_out(folder, dataset):
    for pictures in (folder_pictures(str(folder)), dataset_pictures(str(dataset), "test")):
        named = {number: picture.name for number, picture in pictures.read()}
        left = {number: picture.name for number, picture in pictures.read({0, 2})}
        assert left == {number: named[number] for number in (1, 3)}


def test_headers_that_tell_of_no_picture_are_faults(folder):
    (folder / "text.png").write_text("no picture")
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "folder.png").mkdir()
    (folder / "coffee.png").write_bytes((folder / "coffee.png").read_bytes()[:20])
    pictures = folder_pictures(str(folder))
    assert set(pictures.faults) == {"text.png", "gone.jpg", "coffee.png"}
    assert pictures.sizes == dict.fromkeys(("astronaut.png", "chelsea.png", "rocket.png"), (96, 96))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_pictures_have_two_dimensions(tmp_path, mode):
    grey = Image.fromarray(np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12))
    if mode == "I;16":
        deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        deep.save(tmp_path / "grey.png")
    else:
        grey.convert(mode).save(tmp_path / "grey.png")
    picture = read_picture(str(tmp_path / "grey.png"))
    assert picture.hr.shape == (10, 12)
    assert picture.rgb.shape == (10, 12, 3)
    if mode != "1":
        assert np.array_equal(picture.hr, np.asarray(grey))


def test_transparent_parts_are_white(tmp_path):
    Image.new("RGBA", (12, 12), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_picture(str(tmp_path / "clear.png")).hr == 255).all()


def test_pictures_are_turned_upright(tmp_path):
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    (tmp_path / "turned.jpg").write_bytes(buffer.getvalue())
    assert read_picture(str(tmp_path / "turned.jpg")).hr.shape == (30, 20, 3)


@pytest.mark.parametrize(
    "name", ["html_saved_as_1.jpg", "truncated_640x480.png", "bomb_65536x65536.png"]
)
def test_hostile_files_are_refused(shared_data, name):
    with pytest.raises(UsageError, match=name):
        read_picture(str(shared_data / "bad-images" / name))
