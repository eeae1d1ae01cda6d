import io
import logging

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from evaluation.photo import read_header, read_photo
from pipelines.command.cli import UsageError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)


@pytest.fixture
def file(tmp_path):
    """file(image, name, **options): the path of an image that was saved so."""

    def save(image, name, **options):
        path = str(tmp_path / name)
        if isinstance(image, bytes):
            (tmp_path / name).write_bytes(image)
        else:
            image.save(path, **options)
        return path

    return save


def png16(samples):
    return tf.io.encode_png(samples).numpy()


def tiff16(samples, **options):
    data = io.BytesIO()
    tifffile.imwrite(data, samples, photometric="rgb", **options)
    return data.getvalue()


@pytest.mark.parametrize(
    ("mode", "channels", "bits"),
    [
        ("1", 1, 8), ("L", 1, 8), ("LA", 2, 8), ("P", 3, 8), ("RGB", 3, 8), ("RGBA", 4, 8),
        ("I;16", 1, 16),
    ],
)  # fmt: skip
def test_channels_and_depth_stay(file, colours, mode, channels, bits):
    image = Image.fromarray(colours)
    image = Image.fromarray(colours[..., 0].astype(np.uint16) * 257) if bits == 16 else image
    photo = read_photo(file(image if bits == 16 else image.convert(mode), "a.png"))
    assert photo.samples.shape == (20, 31, channels)
    assert (photo.bits, photo.is_grey) == (bits, channels < 3)
    if mode == "RGB":
        assert np.array_equal(photo.samples, colours)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_all_read_from_png(file, channels):
    samples = np.random.default_rng(0).integers(30_000, 65536, (9, 7, channels)).astype(np.uint16)
    path = file(png16(samples), "a.png")
    assert np.array_equal(read_photo(path).samples, samples)
    assert 2 * channels <= read_header(path).bytes_a_pixel <= 8


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": 2}])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_are_all_read_from_tiff(file, channels, options):
    samples = np.random.default_rng(0).integers(30_000, 65536, (9, 7, channels)).astype(np.uint16)
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    photo = read_photo(file(tiff16(samples, **options, **extra), "a.tif"))
    assert np.array_equal(photo.samples, samples)


def test_planes_and_multiplied_colours_of_tiff_are_put_right(file):
    samples = np.full((9, 7, 4), 10_000, np.uint16)
    samples[..., 3] = 20_000
    multiplied = tiff16(samples, extrasamples=["assocalpha"])
    photo = read_photo(file(multiplied, "a.tif"))
    assert photo.samples[0, 0].tolist() == [32768, 32768, 32768, 20_000]
    planes = tiff16(np.moveaxis(samples[..., :3], 2, 0), planarconfig="separate")
    assert read_photo(file(planes, "b.tif")).samples.shape == (9, 7, 3)


@pytest.mark.parametrize(
    ("most", "white"), [(200, 255), (1000, 1023), (4000, 4095), (8000, 65535), (60_000, 65535)]
)
def test_white_of_fewer_bits_in_sixteen(file, most, white):
    samples = np.full((5, 5, 3), most, np.uint16)
    assert read_photo(file(png16(samples), "a.png")).white == white


def test_a_transparent_colour_of_sixteen_bits_is_transparency(file):
    # Grey 16 with a tRNS chunk behind the header.
    data = png16(np.arange(300, dtype=np.uint16).reshape(1, 300, 1) * 200)
    chunk = b"tRNS" + (200).to_bytes(2, "big")
    data = data[:33] + b"\0\0\0\x02" + chunk + _crc(chunk) + data[33:]
    photo = read_photo(file(data, "a.png"))
    assert photo.samples[0, :3, -1].tolist() == [65535, 0, 65535]
    assert photo.is_grey


def _crc(chunk):
    import zlib

    return zlib.crc32(chunk).to_bytes(4, "big")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_upright_whatever_reads_it(file, colours, name, turn):
    exif = Image.Exif()
    exif[Base.Orientation] = turn
    path = file(Image.fromarray(colours), name, exif=exif, quality=100)
    header, photo = read_header(path), read_photo(path)
    assert (header.width, header.height) == ((31, 20) if turn < 5 else (20, 31))
    assert photo.samples.shape == (header.height, header.width, 3)
    assert Base.Orientation not in photo.metadata.exif
    if name == "a.tif":
        wide = tiff16(colours.astype(np.uint16) * 257, extratags=[(274, 3, 1, turn, True)])
        assert np.array_equal(read_photo(file(wide, "w.tif")).samples // 257, photo.samples)


def test_metadata_is_kept_but_for_what_is_no_longer_true(file, colours):
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Orientation] = "me", 3
    exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = "2020:01:01 00:00:00"
    exif.get_ifd(IFD.GPSInfo)[1] = "N"
    image = Image.fromarray(colours)
    metadata = read_photo(
        file(image, "a.jpg", exif=exif, dpi=(300, 300), icc_profile=SRGB)
    ).metadata
    assert metadata.dpi == (300, 300)
    assert metadata.profile == SRGB
    assert metadata.exif[Base.Make] == "me"
    assert Base.Orientation not in metadata.exif
    assert metadata.exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] == "2020:01:01 00:00:00"
    assert metadata.exif.get_ifd(IFD.GPSInfo)[1] == "N"


def test_a_profile_of_other_colours_is_left_out(file, colours):
    grey = Image.fromarray(colours).convert("L")
    assert read_photo(file(grey, "a.jpg", icc_profile=SRGB)).metadata.profile is None
    cmyk = Image.fromarray(colours).convert("CMYK")
    photo = read_photo(file(cmyk, "b.jpg"))
    assert photo.samples.shape == (20, 31, 3)
    assert photo.metadata.profile is None


def test_broken_exif_costs_no_picture(file, colours):
    path = file(Image.fromarray(colours), "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_photo(path).samples.shape == (20, 31, 3)


def test_gamma_is_applied_in_any_depth(file):
    samples = np.full((4, 4, 3), 128, np.uint8)
    data = png16(samples)
    chunk = b"gAMA" + (100_000).to_bytes(4, "big")  # linear
    wide = png16(samples.astype(np.uint16) * 257)
    for number, content in enumerate((data, wide)):
        content = content[:33] + b"\0\0\0\x04" + chunk + _crc(chunk) + content[33:]
        photo = read_photo(file(content, f"{number}.png"))
        assert photo.samples[0, 0, 0] / photo.white == pytest.approx((128 / 255) ** (1 / 2.2), 0.01)


def test_colours_of_transparent_pixels_are_their_neighbours(file, colours):
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[...] = 0, 255, 0, 0
    rgba[:, :10] = 200, 0, 0, 255
    rgba[:, 10] = 0, 0, 255, 3
    samples = read_photo(file(Image.fromarray(rgba), "a.png")).samples
    assert (samples[..., :3] == (200, 0, 0)).all()
    assert np.array_equal(samples[..., 3], rgba[..., 3])


def test_colours_of_evenly_faint_pixels_are_their_own(file, colours):
    rgba = np.dstack([colours, np.full((20, 31), 9, np.uint8)])
    assert np.array_equal(read_photo(file(Image.fromarray(rgba), "a.png")).samples, rgba)
    rgba[..., 3] = 0
    assert np.array_equal(read_photo(file(Image.fromarray(rgba), "b.png")).samples, rgba)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_several_pictures_in_a_file_are_refused(file, colours, name):
    other = Image.fromarray(255 - colours)
    path = file(Image.fromarray(colours), name, save_all=True, append_images=[other])
    with pytest.raises(UsageError, match=r"a\.\w+ is not .* it holds 2 pictures, one is needed"):
        read_header(path)


def test_what_is_no_picture_is_refused(tmp_path, file, colours):
    (tmp_path / "text.png").write_text("text")
    whole = tmp_path / "whole.png"
    whole.write_bytes(png16(colours.astype(np.uint16) * 257))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(UsageError, match=r"text\.png is not a readable picture: .*begins with"):
        read_header(str(tmp_path / "text.png"))
    with pytest.raises(UsageError, match=r"there is no picture .*none\.png"):
        read_header(str(tmp_path / "none.png"))
    with pytest.raises(UsageError, match=r"cut\.png is not a readable picture"):
        read_photo(str(tmp_path / "cut.png"))


def test_published_odd_files_are_read_or_refused_in_one_line(shared_data, caplog):
    caplog.set_level(logging.ERROR)
    read = 0
    for path in sorted((shared_data / "bad-images").iterdir()):
        try:
            header = read_header(str(path))
            samples = read_photo(str(path)).samples
        except UsageError as error:
            assert "\n" not in str(error)
        else:
            read += 1
            assert samples.shape[:2] == (header.height, header.width)
    assert read > 12
