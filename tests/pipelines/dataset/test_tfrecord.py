import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.tfrecord import CorruptRecord, frame_record, read_records, unframe_record

RECORDS = st.lists(st.binary(max_size=50), max_size=5)


def written(records: list[bytes]) -> bytes:
    return b"".join(map(frame_record, records))


def read(data: bytes) -> list[bytes]:
    return list(read_records(io.BytesIO(data)))


@given(RECORDS)
def test_round_trip(records: list[bytes]) -> None:
    assert read(written(records)) == records


@given(st.binary(max_size=50))
def test_one_record_is_unframed(record: bytes) -> None:
    framed = frame_record(record)
    assert unframe_record(framed) == record
    for other in (b"", framed[:-1], framed + framed):
        with pytest.raises(CorruptRecord):
            unframe_record(other)


def test_every_flipped_byte_is_found() -> None:
    data = written([b"first", b"", b"the third"])
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0x10
        with pytest.raises(CorruptRecord, match="at byte"):
            read(bytes(broken))


def test_every_cut_inside_a_record_is_found() -> None:
    records = [b"first", b"", b"the third"]
    data = written(records)
    ends = [len(written(records[:count])) for count in range(4)]
    for length in range(len(data)):
        if length in ends:
            assert read(data[:length]) == records[: ends.index(length)]
        else:
            with pytest.raises(CorruptRecord, match="cut off"):
                read(data[:length])


def test_the_message_names_the_offset_of_the_broken_record() -> None:
    first = written([b"good"])
    with pytest.raises(CorruptRecord, match=f"at byte {len(first)} has a wrong checksum"):
        read(first + written([b"bad"])[:-1] + b"\0")


def test_tensorflow_reads_and_writes_the_same_bytes(tmp_path: Path) -> None:
    import tensorflow as tf

    records = [b"", b"one", bytes(range(256)) * 300]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(written(records))
    assert list(tf.data.TFRecordDataset(str(ours)).as_numpy_iterator()) == records
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in records:
            writer.write(record)
    assert theirs.read_bytes() == ours.read_bytes()
