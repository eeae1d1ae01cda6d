import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.examples import Crop, Example, Original, decode_features, encode_features

INT64 = st.integers(-(2**63), 2**63 - 1)
FEATURES = st.dictionaries(
    st.text(max_size=10),
    st.binary(max_size=200) | st.lists(INT64, max_size=5).map(tuple),
    max_size=5,
)
TEXT = st.text(max_size=20)
EXAMPLE = Example(
    image_id="n01440764_10",
    url="http://a.com/é.jpg",
    sha256="ab" * 32,
    crop=Crop(1, 2, 200, 200),
    hr=b"hr",
    lr={2: b"two", 3: b"three"},
)


@given(FEATURES)
def test_features_round_trip(features: dict[str, bytes | tuple[int, ...]]) -> None:
    assert decode_features(encode_features(features)) == features


@given(FEATURES)
def test_features_do_not_depend_on_their_order(
    features: dict[str, bytes | tuple[int, ...]],
) -> None:
    assert encode_features(dict(reversed(features.items()))) == encode_features(features)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_value_error(data: bytes) -> None:
    for parse in (decode_features, Example.from_bytes, Original.from_bytes):
        with contextlib.suppress(ValueError):
            parse(data)


def test_every_mutation_of_an_example_raises_only_value_error() -> None:
    data = EXAMPLE.to_bytes()
    for position in range(len(data)):
        for value in (0, 1, 0x7F, 0xFF):
            with contextlib.suppress(ValueError):
                Example.from_bytes(data[:position] + bytes([value]) + data[position + 1 :])


@given(
    TEXT, TEXT, st.binary(max_size=9), st.dictionaries(st.integers(2, 19), st.binary(max_size=9))
)
def test_examples_round_trip(image_id: str, url: str, hr: bytes, lr: dict[int, bytes]) -> None:
    example = Example(image_id, url, "00", Crop(0, 7, 1, 1), hr, lr)
    read = Example.from_bytes(example.to_bytes())
    assert read == example
    assert list(read.lr) == sorted(lr)


@given(TEXT, TEXT, st.binary(max_size=99))
def test_originals_round_trip(image_id: str, url: str, data: bytes) -> None:
    original = Original(image_id, url, "00", data)
    assert Original.from_bytes(original.to_bytes()) == original


@pytest.mark.parametrize(
    ("image_id", "wnid"),
    [
        ("n01440764_10", "n01440764"),
        ("n01440764/x", "n01440764"),
        ("n014407641_1", ""),
        ("cat", ""),
    ],
)
def test_wnid(image_id: str, wnid: str) -> None:
    assert Example(image_id, "", "", Crop(0, 0, 1, 1), b"", {}).wnid == wnid


@pytest.mark.parametrize("name", ["image_id", "url", "sha256", "crop", "hr"])
def test_a_missing_feature_is_named(name: str) -> None:
    features = decode_features(EXAMPLE.to_bytes())
    del features[name]
    with pytest.raises(ValueError, match=name):
        Example.from_bytes(encode_features(features))


def test_floats_are_refused() -> None:
    # Features { feature { key: "x" value { float_list { value: [1.0] } } } }
    packed = b"\x0a\x04\x00\x00\x80\x3f"
    feature = b"\x12" + bytes([len(packed)]) + packed
    entry = b"\x0a\x01x\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    with pytest.raises(ValueError, match="neither one bytes value nor"):
        decode_features(b"\x0a" + bytes([len(features)]) + features)


def test_tensorflow_reads_an_example_and_we_read_its() -> None:
    import tensorflow as tf

    theirs = tf.train.Example.FromString(EXAMPLE.to_bytes()).features.feature
    assert theirs["image_id"].bytes_list.value == [b"n01440764_10"]
    assert theirs["wnid"].bytes_list.value == [b"n01440764"]
    assert theirs["url"].bytes_list.value == ["http://a.com/é.jpg".encode()]
    assert theirs["crop"].int64_list.value == [1, 2, 200, 200]
    assert theirs["lr_x3"].bytes_list.value == [b"three"]
    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                "text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"abc"])),
                "numbers": tf.train.Feature(int64_list=tf.train.Int64List(value=[-1, 0, 300])),
            }
        )
    )
    assert decode_features(example.SerializeToString()) == {"text": b"abc", "numbers": (-1, 0, 300)}
