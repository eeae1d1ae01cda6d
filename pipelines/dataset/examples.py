"""The schema of the records: tf.train.Example, written and read without TensorFlow.

``tf.train.Example`` is ``Features features = 1``, which is ``map<string, Feature> feature = 1``;
a Feature holds ``BytesList = 1``, ``FloatList = 2`` or ``Int64List = 3``, each ``value = 1``
(tensorflow/core/example/feature.proto). Keys are written in sorted order, so that equal
examples are equal bytes; a protobuf map promises no order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pipelines.dataset.options import wnid_of

Feature = bytes | tuple[int, ...]

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIRST, _SECOND, _THIRD = (bytes((number << 3 | _LENGTH_DELIMITED,)) for number in (1, 2, 3))
_BYTES, _INTEGERS = _FIRST, _THIRD
_ONE_BYTE = [bytes((number,)) for number in range(0x80)]


@dataclass(frozen=True, order=True)
class Crop:
    """A square cut from an upright picture; all in pixels of that picture."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Example:
    """One HR crop with its LR versions."""

    image_id: str
    url: str
    sha256: str
    """Of the picture's original bytes, in hexadecimal."""
    crop: Crop
    hr: bytes
    """PNG, RGB."""
    lr: Mapping[int, bytes]
    """PNG, RGB, by scale."""

    @property
    def wnid(self) -> str:
        """The WordNet id, 'n01440764' of 'n01440764_10120', or nothing."""
        return wnid_of(self.image_id)

    def to_bytes(self) -> bytes:
        """The serialized tf.train.Example."""
        crop = (self.crop.x, self.crop.y, self.crop.width, self.crop.height)
        features: dict[str, Feature] = {
            "image_id": self.image_id.encode(),
            "wnid": self.wnid.encode(),
            "url": self.url.encode(),
            "sha256": self.sha256.encode(),
            "crop": crop,
            "hr": self.hr,
        }
        features.update((f"lr_x{scale}", png) for scale, png in self.lr.items())
        return encode_features(features)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Example":
        """Parses what to_bytes gives. Raises ValueError where a feature is missing or wrong."""
        features = decode_features(data)
        crop = features.get("crop")
        if not isinstance(crop, tuple) or len(crop) != 4:
            raise ValueError(f"feature 'crop' is not x, y, width, height: {crop!r}")
        return cls(
            image_id=_text(features, "image_id"),
            url=_text(features, "url"),
            sha256=_text(features, "sha256"),
            crop=Crop(*crop),
            hr=_bytes(features, "hr"),
            lr={scale: _bytes(features, f"lr_x{scale}") for scale in _scales(features)},
        )


@dataclass(frozen=True)
class Original:
    """A picture as it came."""

    image_id: str
    url: str
    sha256: str
    data: bytes

    def to_bytes(self) -> bytes:
        """The serialized tf.train.Example: id, url, sha256, bytes."""
        return encode_features(
            {
                "id": self.image_id.encode(),
                "url": self.url.encode(),
                "sha256": self.sha256.encode(),
                "bytes": self.data,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Original":
        """Parses what to_bytes gives. Raises ValueError where a feature is missing."""
        features = decode_features(data)
        return cls(
            image_id=_text(features, "id"),
            url=_text(features, "url"),
            sha256=_text(features, "sha256"),
            data=_bytes(features, "bytes"),
        )


def encode_features(features: Mapping[str, Feature]) -> bytes:
    """A serialized tf.train.Example with one bytes value or a list of integers a feature."""
    parts: list[bytes] = []
    for name in sorted(features):
        value = features[name]
        if isinstance(value, tuple):
            value = b"".join([_varint(number & 0xFFFFFFFFFFFFFFFF) for number in value])
            parts += (_head(name, _INTEGERS, len(value)), value)
        else:
            parts += (_head(name, _BYTES, len(value)), value)
    return b"".join((_FIRST, _varint(sum(map(len, parts))), *parts))


@lru_cache(maxsize=1024)  # most values have few lengths
def _head(name: str, kind: bytes, length: int) -> bytes:
    """What stands before a feature's value of so many bytes, made from the inside out."""
    head = _FIRST + _varint(length)
    head = kind + _varint(len(head) + length) + head
    key = name.encode()
    head = _FIRST + _varint(len(key)) + key + _SECOND + _varint(len(head) + length) + head
    return _FIRST + _varint(len(head) + length) + head


def decode_features(data: bytes) -> dict[str, Feature]:
    """The features of a serialized tf.train.Example: bytes of one value, or integers.

    Raises ValueError for what is no Example, holds floats, or several bytes values at once.
    """
    features: dict[str, Feature] = {}
    for number, message in _fields(memoryview(data)):  # only a feature's value is copied
        if number != 1 or isinstance(message, int):
            continue
        for entry_number, entry in _fields(message):
            if entry_number != 1 or isinstance(entry, int):
                continue
            name, feature = b"", memoryview(b"")
            for part_number, part in _fields(entry):
                if isinstance(part, int):
                    raise ValueError("a feature's key or value has the wrong wire type")
                if part_number == 1:
                    name = bytes(part)
                elif part_number == 2:
                    feature = part
            features[name.decode()] = _decode_feature(feature)
    return features


def _decode_feature(data: memoryview) -> Feature:
    for kind, values in _fields(data):
        if isinstance(values, int):
            break
        parts = [part for number, part in _fields(values) if number == 1]
        if kind == 1 and len(parts) == 1 and not isinstance(parts[0], int):
            return bytes(parts[0])
        if kind == 3:
            return tuple(_signed(number) for part in parts for number in _integers(part))
    raise ValueError("a feature is neither one bytes value nor a list of integers")


def _integers(part: memoryview | int) -> Iterator[int]:
    if isinstance(part, int):
        yield part
        return
    position = 0
    while position < len(part):
        number, position = _read_varint(part, position)
        yield number


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _ONE_BYTE[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    position, end = 0, len(data)
    while position < end:
        tag, position = _read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, position = _read_varint(data, position)
            yield number, value
            continue
        if wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(data, position)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} is not that of an Example")
        if position + length > end:
            raise ValueError("the Example is cut off")
        yield number, data[position : position + length]
        position += length


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    if position < len(data) and data[position] < 0x80:  # as most are
        return data[position], position + 1
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("the Example is cut off inside a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7


def _bytes(features: Mapping[str, Feature], name: str) -> bytes:
    value = features.get(name)
    if not isinstance(value, bytes):
        raise ValueError(f"feature {name!r} is missing or not bytes")
    return value


def _scales(features: Mapping[str, Feature]) -> list[int]:
    return sorted(int(name.removeprefix("lr_x")) for name in features if name.startswith("lr_x"))


def _text(features: Mapping[str, Feature], name: str) -> str:
    return _bytes(features, name).decode()
