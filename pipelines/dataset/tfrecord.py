"""TFRecord files without TensorFlow.

A record is its length (uint64, little endian), the masked CRC-32C of those 8 bytes, the data,
and the data's masked CRC-32C (tensorflow/core/lib/io/record_writer.h).
"""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import google_crc32c

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CRC.size
_MASK_DELTA = 0xA282EAD8
# A corrupt length must not make the reader ask for terabytes.
MAX_RECORD_BYTES = 1 << 31


class Span(NamedTuple):
    """A record in a file of records, its frame included."""

    offset: int
    num_bytes: int


class CorruptRecord(ValueError):
    """A record that is cut off or whose checksum is wrong; the message has its byte offset."""


def masked_crc(data: bytes) -> int:
    """CRC-32C of ``data``, rotated and shifted as the TFRecord format asks."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame_record(data: bytes) -> bytes:
    """One record as it stands in a file."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, _CRC.pack(masked_crc(length)), data, _CRC.pack(masked_crc(data))))


def unframe_record(record: bytes) -> bytes:
    """The data of one record, checked. Raises CorruptRecord."""
    found = list(read_records(io.BytesIO(record)))
    if len(found) != 1:
        raise CorruptRecord(f"{len(found)} records where one is expected")
    return found[0]


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """The records of an open file in order, each checked. Raises CorruptRecord."""
    offset = 0
    while header := file.read(_HEADER_BYTES):
        length = _parse_header(header, offset)
        data = file.read(length)
        crc = file.read(_CRC.size)
        if len(data) < length or len(crc) < _CRC.size:
            raise CorruptRecord(f"the record at byte {offset} is cut off")
        if _CRC.unpack(crc)[0] != masked_crc(data):
            raise CorruptRecord(f"the record at byte {offset} has a wrong checksum")
        yield data
        offset += _HEADER_BYTES + length + _CRC.size


def skip_records(file: BinaryIO, count: int) -> None:
    """Passes over so many records of an open file, unread. Raises CorruptRecord."""
    for _ in range(count):
        offset = file.tell()
        length = _parse_header(file.read(_HEADER_BYTES), offset)
        file.seek(offset + _HEADER_BYTES + length + _CRC.size)


def spans(file: BinaryIO) -> Iterator[Span]:
    """Where the records of an open file lie, unread. Raises CorruptRecord."""
    end, offset = file.seek(0, io.SEEK_END), 0
    while offset < end:
        file.seek(offset)
        length = _parse_header(file.read(_HEADER_BYTES), offset)
        span = Span(offset, _HEADER_BYTES + length + _CRC.size)
        offset += span.num_bytes
        if offset > end:
            raise CorruptRecord(f"the record at byte {span.offset} is cut off")
        yield span


def _parse_header(header: bytes, offset: int) -> int:
    if len(header) < _HEADER_BYTES:
        raise CorruptRecord(f"the record at byte {offset} is cut off")
    length: int = _LENGTH.unpack_from(header)[0]
    if _CRC.unpack_from(header, _LENGTH.size)[0] != masked_crc(header[: _LENGTH.size]):
        raise CorruptRecord(f"the length at byte {offset} has a wrong checksum")
    if length > MAX_RECORD_BYTES:
        raise CorruptRecord(f"the record at byte {offset} claims {length} bytes")
    return length
