"""Files from anybody: refused in one line, in little memory, or read."""

import contextlib
import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.command.cli import UsageError, WorkError
from pipelines.dataset.examples import Crop, Example
from pipelines.dataset.manifest import Manifest
from pipelines.dataset.tfrecord import _CRC, _LENGTH, frame_record, masked_crc, read_records
from trainer.checkpoints import Checkpoints
from trainer.config import Config, read_values
from trainer.damage import find_fault, naming_damage
from trainer.dataset import Split, load_manifest
from trainer.export import ModelDescription, export_model
from trainer.input import png_head, training_batches
from trainer.models.srcnn import Srcnn
from trainer.step import initial_checkpoint
from trainer.trained import load_model
from trainer.weights_file import read_weights

CONFIG = Config(batch_size=4, patch_size=20)
ARRAYS = Srcnn(3).initial_weights(np.random.default_rng(0))
some_files = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def status_bytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


@contextlib.contextmanager
def refused_at_most():
    """What is done within it succeeds or ends in one of our errors, in under 500 MB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("no peak of memory to be read here")
    before = status_bytes("VmRSS")
    with contextlib.suppress(UsageError, WorkError):
        yield
    assert status_bytes("VmHWM") - before < 500e6


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    run = tmp_path_factory.mktemp("exported")
    description = ModelDescription("srcnn", "rgb", (2, 3), "article")
    export_model(str(run), description, Srcnn(3), ARRAYS)
    return run


@pytest.mark.slow
@some_files
@given(
    name=st.sampled_from(["architecture", "channels", "scales", "degradation", "more"]),
    value=json_values | st.just([10**30]) | st.just("vdsr") | st.just({"rgb": 1}),
)
def test_a_models_description(exported, name, value):
    path = exported / "model/model.json"
    values = {"architecture": "srcnn", "channels": "rgb", "scales": [2], "degradation": None}
    path.write_text(json.dumps({**values, name: value}))
    with refused_at_most():
        assert load_model(str(exported)).description.num_channels == 3


ALIASES = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{last}, *{last}, *{last}]\n"
    for last, name in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
)
TEXTS = [
    "[" * 50_000,
    "{" * 50_000,
    ALIASES + "steps: *p",
    "- " * 20_000,
    "1",
    "",
    "\0",
    "x" * 10**6,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts_that_are_no_descriptions(text, exported, tmp_path):
    for path, read in (
        (exported / "model/model.json", lambda: load_model(str(exported))),
        (tmp_path / "config.yaml", lambda: read_values(str(tmp_path / "config.yaml"))),
        (tmp_path / "dataset.json", lambda: load_manifest(str(tmp_path))),
    ):
        path.write_text(text)
        with refused_at_most():
            read()
            pytest.fail(f"{path.name} was taken for one")


@some_files
@given(name=st.sampled_from([*CONFIG.to_yaml(), "more"]), value=json_values)
@example(name="steps", value=10**400)
@example(name="scales", value=[[[2]]])
def test_a_configuration(tmp_path, name, value):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG.to_yaml(), name: value}))
    with refused_at_most():
        Config(**read_values(str(path)))


def npy(descr, shape, data, header_bytes=None):
    """An array's file whose header says what it likes."""
    header = str({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = len(header) if header_bytes is None else header_bytes
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", length) + header + data


def zeros(packed_mb):
    """Deflated zeros, a thousand times as many, made in no time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (packed_mb * (1 << 20) // len(block)) + packer.flush()


def bomb(path, name, head):
    """An archive of one array: ``head``, then gigabytes of zeros that take a few megabytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(3)
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(f"{name}.npy")
        archive.writestr(info, packed)
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, 3 << 30
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, 8, zipfile.ZIP_DEFLATED)  # in the local header as well
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("w1", npy("<f4", (1 << 15, 1 << 14), b"")),
        ("w1", npy("<f4", (), b"", header_bytes=(1 << 32) - 1)),
        ("state", npy("<U2147483647", (), b"")),
        ("state", npy("<U400000000", (), b"")),
        ("w1", npy("<f4", (9, 9, 3, 64), b"")),
    ],
)
def test_a_small_archive_of_gigabytes(name, head, tmp_path):
    path = tmp_path / "checkpoints/step-00000001.npz"
    path.parent.mkdir()
    bomb(path, name, head)
    with refused_at_most():
        read_weights(str(path))
        pytest.fail("these are weights")
    with refused_at_most():
        Checkpoints(str(tmp_path)).last()
        pytest.fail("this is a checkpoint")


def test_an_archive_of_millions_of_names(tmp_path):
    path = tmp_path / "names.npz"
    entry = bytearray(46) + b"a"
    entry[:4], entry[28:30] = b"PK\x01\x02", struct.pack("<H", 1)
    names = bytes(entry) * 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(names), 0, 0)
    path.write_bytes(names + end)
    with refused_at_most():
        read_weights(str(path))
        pytest.fail("these are weights")


@pytest.mark.slow
@some_files
@given(data=st.data())
def test_arrays_whose_headers_lie(tmp_path, data):
    start = initial_checkpoint(CONFIG)
    Checkpoints(str(tmp_path)).save(start)
    path = tmp_path / "checkpoints/step-00000000.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    sizes = st.integers(-1, 1 << 40) | st.integers(0, 100)
    for name in data.draw(st.lists(st.sampled_from([*members]), min_size=1, max_size=3)):
        descr = data.draw(
            st.sampled_from(["<f4", "<f8", "<U9", "|O", "<c16", "|V9999999", "<U99999999"])
        )
        shape = data.draw(st.lists(sizes, max_size=4).map(tuple) | st.just(()))
        members[name] = npy(descr, shape, data.draw(st.binary(max_size=50)))
    packing = data.draw(st.sampled_from([0, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with refused_at_most():
        Checkpoints(str(tmp_path)).last()
    with refused_at_most():
        read_weights(str(path))


@some_files
@given(
    name=st.sampled_from([*vars(initial_checkpoint(CONFIG)), "more"]),
    value=json_values | st.just(10**300),
)
def test_a_checkpoints_state(tmp_path, name, value):
    Checkpoints(str(tmp_path)).save(initial_checkpoint(CONFIG))
    path = tmp_path / "checkpoints/step-00000000.npz"
    with np.load(path) as file:
        arrays = dict(file)
    state = json.loads(str(arrays["state"]))
    np.savez(path, **{**arrays, "state": np.array(json.dumps({**state, name: value}))})
    with refused_at_most():
        found = Checkpoints(str(tmp_path)).last()
        f"{found.step:,} {found.best_step} {sum(found.losses):.3g}"


def lying(length):
    """The frame of a record that is not there."""
    head = _LENGTH.pack(length)
    return head + _CRC.pack(masked_crc(head))


def with_picture(record, png):
    example = Example.from_bytes(record)
    crop = Crop(0, 0, 48, 48)
    lr = dict.fromkeys(example.lr, png)
    return frame_record(Example("n1_1", "http://x.org", "0", crop, png, lr).to_bytes())


def png_of(width, height):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = zlib.compress(bytes(1 << 20)) if width > 48 else zlib.compress(bytes(48 * 145))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffc0001108fff0fff003012200021101031101"
)


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("strangers") / "set"
    shutil.copytree(dataset, folder)
    split = Split.of(load_manifest(str(folder)), str(folder), "train")
    split = Split(split.paths[:1], split.counts[:1], split.crop_size)
    with Path(split.paths[0]).open("rb") as file:
        return split, list(read_records(file))


LYING = [lying(1 << 30), lying(1 << 40), lying((1 << 64) - 1), lying((1 << 64) - 4)]
PICTURES = [png_of(13_000, 13_000), JPEG, png_head(48), b""]


@some_files
@given(data=st.data())
def test_records_that_lie(one_shard, data):
    split, records = one_shard
    frames = [frame_record(record) for record in records]
    forged = st.one_of(
        st.sampled_from([*LYING, *(with_picture(records[0], png) for png in PICTURES)]),
        st.integers(0, (1 << 64) - 1).map(lying),
        st.binary(max_size=40),
        st.binary(max_size=40).map(frame_record),
    )
    frames[data.draw(st.integers(0, len(frames) - 1))] = data.draw(forged)
    Path(split.paths[0]).write_bytes(b"".join(frames))
    with refused_at_most():
        assert find_fault(split, split.paths)


@pytest.mark.parametrize("forged", [*LYING[1:3], *PICTURES[:2]], ids=range(4))
def test_records_that_lie_to_a_training(forged, one_shard):
    split, records = one_shard
    if forged not in LYING:
        forged = with_picture(records[0], forged)
    Path(split.paths[0]).write_bytes(forged + b"".join(map(frame_record, records[1:])))
    with refused_at_most(), naming_damage(split, 0, 0):
        next(iter(training_batches(split, CONFIG, 0)))
        pytest.fail("they were read")


def test_a_record_as_large_as_its_file(one_shard, tmp_path):
    # A file of its own: the input of an earlier test may still be reading ahead in theirs, which
    # it had found in order.
    others, _ = one_shard
    large = tmp_path / "large.tfrecord"
    split = Split((str(large),), others.counts, others.crop_size)
    with large.open("wb") as file:
        file.write(lying(1 << 30))
        file.truncate((1 << 30) + 16)
    with refused_at_most(), naming_damage(split, 0, 0):
        next(iter(training_batches(split, CONFIG, 0)))
    large.unlink()


PLACES = [
    ("format",), ("options",), ("options", "crop_size"), ("options", "scales"), ("splits",),
    ("splits", "train"), ("splits", "train", "shards"),
    ("splits", "train", "shards", "train-00000-of-00003", "examples"),
    ("splits", "train", "shards", "train-00000-of-00003", "bytes"),
]  # fmt: skip
NAMES = ["../../etc/passwd", "/etc/passwd", "train-1/../../x", "train-00000-of-00003\n", ""]


@some_files
@given(place=st.sampled_from(PLACES), value=json_values | st.integers(0, 10**30))
def test_a_datasets_description(dataset, tmp_path, place, value):
    values = json.loads((dataset / "dataset.json").read_text())
    *parents, last = place
    part = values
    for name in parents:
        part = part[name]
    part[last] = value
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    with refused_at_most():
        manifest = load_manifest(str(tmp_path))
        assert all(shard.examples < shard.num_bytes for shard in manifest.shards.values())


@pytest.mark.parametrize("name", [*NAMES, "test-00000-of-00001"])
def test_a_shard_has_a_shards_name(name, dataset, tmp_path):
    values = json.loads((dataset / "dataset.json").read_text())
    shards = values["splits"]["train"]["shards"]
    shards[name] = shards.pop("train-00000-of-00003")
    with pytest.raises(UsageError, match="is no name of a shard of train"):
        Manifest.parse(str(tmp_path), json.dumps(values).encode())
