import numpy as np
import pytest
import tensorflow as tf
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from evaluation import saving
from evaluation.photo import Metadata, Photo
from evaluation.saving import FORMATS, check_room, eight_bits, save
from pipelines.command.cli import UsageError, WorkError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TYPES = {8: np.uint8, 16: np.uint16}


def samples_of(channels, bits, size=(37, 23)):
    most = 2**bits
    return np.random.default_rng(0).integers(0, most, (*size, channels)).astype(TYPES[bits])


def save_samples(path, samples, band_rows=10, white=None, metadata=None):
    photo = Photo(samples, white or np.iinfo(samples.dtype).max, False, metadata or Metadata())
    bands = (samples[y : y + band_rows] for y in range(0, len(samples), band_rows))
    save(str(path), bands, photo, 1)


def read(path):
    """All bits."""
    if path.suffix == ".tif":
        return tifffile.imread(path)
    data = path.read_bytes()
    return tf.io.decode_png(data, 0, tf.uint16 if data[24] == 16 else tf.uint8).numpy()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("band_rows", [1, 7, 100])
def test_rows_are_written_as_they_are(tmp_path, suffix, bits, channels, band_rows):
    samples = samples_of(channels, bits)
    path = tmp_path / f"a{suffix}"
    save_samples(path, samples, band_rows)
    found = read(path)
    assert found.dtype == samples.dtype
    assert np.array_equal(found.reshape(samples.shape), samples)
    if bits == 8:
        with Image.open(path) as image:
            assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
            assert np.array_equal(np.asarray(image).reshape(samples.shape), samples)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 9))
def test_pictures_of_any_size_are_whole(tmp_path_factory, width, height, band_rows):
    samples = samples_of(3, 8, (height, width))
    for suffix in (".png", ".tif"):
        path = tmp_path_factory.getbasetemp() / f"any{suffix}"
        save_samples(path, samples, band_rows)
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), samples)


def test_an_enlarged_photograph_is_no_larger_than_by_pillow(tmp_path, photos):
    image = photos["coffee"].resize((300, 300), Image.Resampling.BICUBIC)
    save_samples(tmp_path / "ours.png", np.asarray(image))
    image.save(tmp_path / "pillow.png")
    ours, pillows = ((tmp_path / name).stat().st_size for name in ("ours.png", "pillow.png"))
    assert ours <= 1.01 * pillows


@pytest.mark.parametrize("suffix", [*FORMATS])
def test_metadata_is_in_every_format_that_has_it(tmp_path, suffix):
    exif = Image.Exif()
    exif[Base.Make] = "me"
    exif.get_ifd(IFD.Exif).update({Base.ExifImageWidth: 7, Base.FNumber: 2.8})
    exif.get_ifd(IFD.GPSInfo)[1] = "N"
    path = tmp_path / f"a{suffix}"
    save_samples(path, samples_of(3, 8), metadata=Metadata(SRGB, exif, (300, 300)))
    with Image.open(path) as image:
        image.load()
        found = image.getexif()
        dpi = image.info.get("dpi") or (found[Base.XResolution], found[Base.YResolution])
        assert dpi == pytest.approx((300, 300), abs=0.02)
        if suffix == ".bmp":
            return
        assert image.info["icc_profile"] == SRGB
        assert found[Base.Make] == "me"
        assert found.get_ifd(IFD.Exif)[Base.ExifImageWidth] == 23
        assert found.get_ifd(IFD.Exif)[Base.FNumber] == pytest.approx(2.8)
        assert found.get_ifd(IFD.GPSInfo)[1] == "N"


def test_exif_that_no_segment_holds_is_left_out(tmp_path):
    exif = Image.Exif()
    exif[Base.ImageDescription] = "x" * 70_000
    save_samples(tmp_path / "a.jpg", samples_of(3, 8), metadata=Metadata(exif=exif))
    with Image.open(tmp_path / "a.jpg") as image:
        assert not image.getexif()


@pytest.mark.parametrize(("bits", "white"), [(8, 255), (16, 65535), (16, 4095)])
def test_a_format_without_it_gets_eight_bits_on_white(tmp_path, bits, white):
    samples = np.zeros((20, 20, 4), TYPES[bits])
    samples[..., 0] = white
    samples[:10, :, 3] = 2**bits - 1
    save_samples(tmp_path / "a.bmp", samples, white=white)
    with Image.open(tmp_path / "a.bmp") as image:
        assert image.mode == "RGB"
        assert image.getpixel((5, 5)) == (255, 0, 0)
        assert image.getpixel((5, 15)) == (255, 255, 255)


def test_eight_bits_are_rounded():
    assert eight_bits(np.array([[[128, 129, 385]]], np.uint16), 65535).tolist() == [[[0, 1, 1]]]


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("a.xyz", (1, 1), r"a\.xyz: \.xyz is not written, use \.png, "),
        ("a", (1, 1), "a: no suffix is not written, use"),
        ("a.ico", (1, 1), r"\.ico is not written"),
        ("a.webp", (16_384, 2), "16384x2 pixels: WEBP ends at 16383, use .png"),
        ("a.jpg", (2, 65_501), "JPEG ends at 65500"),
        ("a.tif", (40_000, 40_000), r"are 4\.8 GB, and TIFF ends at 4 GB: use \.png"),
        ("a.png", (10**7, 10**7), r"take up to 300000\.0 GB, and .* GB of the disk are free"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_known_before(tmp_path, name, size, reason):
    with pytest.raises(UsageError, match=reason):
        check_room(str(tmp_path / name), *size, 3)


def test_memory_of_what_is_written_as_a_whole_is_known_before(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_free_memory", lambda: 1_500_000_000)
    check_room(str(tmp_path / "a.jpg"), 15_360, 8_640, 3)
    with pytest.raises(UsageError, match=r"JPEG take 2\.7 GB of memory, and 1\.5 GB are free: use"):
        check_room(str(tmp_path / "a.jpg"), 30_720, 17_280, 3)
    check_room(str(tmp_path / "a.png"), 30_720, 17_280, 3)
    monkeypatch.undo()
    assert 10**8 < saving._free_memory() < 10**14


@pytest.mark.parametrize("suffix", [*FORMATS])
@pytest.mark.parametrize("error", [WorkError("no use"), OSError(28, "No space left on device")])
def test_nothing_is_left_of_what_fails(tmp_path, suffix, error):
    def bands():
        yield samples_of(3, 8)
        raise error

    path = tmp_path / f"a{suffix}"
    with pytest.raises(WorkError, match=r"no use|a\.\w+ cannot be written: No space left"):
        save(str(path), bands(), Photo(samples_of(3, 8)), 2)
    assert [*tmp_path.iterdir()] == []


def test_what_an_ended_process_left_is_removed_but_nothing_of_a_running_one(tmp_path):
    (tmp_path / "a.png.0.tmp").write_text("left")
    (tmp_path / "b.png.0.tmp").write_text("of another picture")

    def bands():
        assert not (tmp_path / "a.png.0.tmp").exists()
        save_samples(tmp_path / "a.png", samples_of(1, 8))  # as another process would
        yield samples_of(3, 8)

    save(str(tmp_path / "a.png"), bands(), Photo(samples_of(3, 8)), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png.0.tmp"]
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB"
