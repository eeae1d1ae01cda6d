import contextlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command.cli import UsageError
from trainer.models.srcnn import Srcnn
from trainer.weights_file import read_weights

ARRAYS = Srcnn(1).initial_weights(np.random.default_rng(0))


def write(path, **arrays):
    np.savez(path / "some.npz", **arrays)
    return str(path / "some.npz")


def test_weights_of_any_number_type_are_read_as_float32(tmp_path):
    path = write(tmp_path, **{name: array.astype(np.float64) for name, array in ARRAYS.items()})
    found = read_weights(path)
    assert (found.network, found.scales) == (Srcnn(1), ())
    for name, expected in ARRAYS.items():
        array = found.weights[name]
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected)


def changed(name, value):
    array = ARRAYS[name].astype(np.float64)
    array.flat[3] = value
    return {**ARRAYS, name: array}


CHANNELS_FIRST = {
    name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    for name, array in ARRAYS.items()
}
REFUSED = [
    (changed("w2", np.nan), "w2 holds numbers that are not finite"),
    (changed("b1", -np.inf), "b1 holds numbers that are not finite"),
    (changed("w3", 1e300), "w3 holds numbers that are not finite"),
    ({**ARRAYS, "step": np.array(3)}, "step is none of the network's arrays: leave it out"),
    ({**ARRAYS, "b4": np.zeros(1)}, "b4 is none of the network's arrays"),
    ({name.upper(): array for name, array in ARRAYS.items()}, "W1 must be called w1, and so on"),
    (CHANNELS_FIRST, r"w1 \[64, 1, 9, 9\] has output and .* w\.transpose\(2, 3, 1, 0\)"),
    ({**ARRAYS, "w1": np.array([{}])}, "w1 holds pickled objects: save it as float32"),
    ({**ARRAYS, "w1": np.array(["text"])}, "w1 holds <U4: save it as float32"),
    ({"w1": ARRAYS["w1"], "w3": ARRAYS["w3"]}, "no known network"),
    ({f"layer{n}": np.zeros(3) for n in range(40)}, r"layer5 \[3\], … \(40 arrays\)$"),
]


@pytest.mark.parametrize(("arrays", "message"), REFUSED)
def test_other_weights_are_refused_with_the_array_and_the_cure(arrays, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        read_weights(write(tmp_path, **arrays))


def test_a_single_array_is_no_weights_file(tmp_path):
    np.save(tmp_path / "w1.npy", ARRAYS["w1"])
    with pytest.raises(UsageError, match=r"w1\.npy is one array \(\.npy\): put w1, b1"):
        read_weights(str(tmp_path / "w1.npy"))


def test_arrays_of_no_network_are_not_unpacked(tmp_path):
    """1 MB that unpacks to a gigabyte, of which nothing lies behind the header here."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 14, 1 << 14)}
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("w1.npy", header.getvalue())
    with pytest.raises(UsageError, match=r"no known network .* w1 \[16384, 16384\]$"):
        read_weights(str(tmp_path / "bomb.npz"))


@given(st.data())
def test_a_damaged_file_is_one_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray((folder / write(folder, **ARRAYS)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Where the archive's and the arrays' headers are.
        place = data.draw(st.integers(0, 300) | st.integers(len(content) - 400, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    (folder / "some.npz").write_bytes(content[:end])
    with contextlib.suppress(UsageError):
        read_weights(str(folder / "some.npz"))
