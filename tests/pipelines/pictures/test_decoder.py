import asyncio
import io
import pickle
import resource
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.command.cli import WorkError
from pipelines.dataset.examples import Crop, Example, Original
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome
from pipelines.dataset.tfrecord import Span, frame_record, unframe_record
from pipelines.pictures import decoder as module
from pipelines.pictures.decoder import Decoded, Decoder, Picture

OPTIONS = DatasetOptions(crop_size=32, scales=(2,), crop_margin=0)
FATAL = b"\x89PNG\r\n\x1a\n fatal"

# A process that a certain picture kills, as a fault in a codec would.
_FAULTY = """
import dataclasses
import os
import time
from pipelines.pictures import decoder
decoder._CPU_LIMIT_S = 1
true = decoder.examples_of
def examples_of(original, options):
    data = original.data
    if data.endswith(b"fatal"):
        os.abort()
    if data.endswith(b"busy"):
        sum(iter(int, 1))
    if data.endswith(b"asleep"):
        time.sleep(1000)
    if data.endswith(b"fatal once") and not os.path.exists({flag!r}):
        open({flag!r}, "w").close()
        os.abort()
    data = data.removesuffix(b"fatal once")
    return true(dataclasses.replace(original, data=data), options)
decoder.examples_of = examples_of
decoder.main()
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.create_subprocess_exec
    program = _FAULTY.format(flag=str(tmp_path / "flag"))

    async def started(
        python: str, option: str, _: str, parent: str, **pipes: Any
    ) -> asyncio.subprocess.Process:
        return await start(
            python, option, program, parent, stderr=asyncio.subprocess.DEVNULL, **pipes
        )

    monkeypatch.setattr(module.asyncio, "create_subprocess_exec", started)


@pytest.fixture
def store(tmp_path: Path) -> Callable[[bytes], Picture]:
    """Appends a picture's bytes to a spool."""
    originals = tmp_path / "originals"
    originals.touch()

    def append(data: bytes) -> Picture:
        offset = originals.stat().st_size
        original = Original(f"n{offset}", f"http://a.com/{offset}", f"{offset:064}", data)
        record = frame_record(original.to_bytes())
        with originals.open("ab") as file:
            file.write(record)
        return Picture(str(originals), Span(offset, len(record)), str(tmp_path / "candidates"))

    return append


def png(grey: int, side: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), grey).save(file, "PNG")
    return file.getvalue()


def decoded(*pictures: Picture) -> list[Decoded]:
    async def decode() -> list[Decoded]:
        async with Decoder(OPTIONS) as decoder:
            return await asyncio.gather(*map(decoder.decode, pictures))

    return asyncio.run(asyncio.wait_for(decode(), 60))


def example(picture: Picture, result: Decoded) -> Example:
    ((crop, (offset, num_bytes)),) = result.examples
    record = Path(picture.candidates).read_bytes()[offset : offset + num_bytes]
    found = Example.from_bytes(unframe_record(record))
    assert (found.crop, found.url) == (crop, f"http://a.com/{picture.original.offset}")
    assert found.sha256 == f"{picture.original.offset:064}"
    return found


def test_pictures_are_decoded_where_they_lie(store: Callable[[bytes], Picture]) -> None:
    pictures = [store(png(1)), store(png(2, side=8)), store(b"<html>"), store(png(3, side=50))]
    first, small, none, last = decoded(*pictures)
    assert [r.outcome for r in (first, small, none, last)] == [
        *(Outcome.OK, Outcome.TOO_SMALL, Outcome.NOT_AN_IMAGE, Outcome.OK)
    ]
    assert (small.size, none.size, last.size) == ((8, 8), None, (50, 50))
    for picture, result, grey in ((pictures[0], first, 1), (pictures[3], last, 3)):
        with Image.open(io.BytesIO(example(picture, result).hr)) as image:
            assert image.getpixel((0, 0)) == (grey, grey, grey)


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_a_picture_that_kills_its_process_costs_itself_alone(
    store: Callable[[bytes], Picture],
) -> None:
    data = [png(1), FATAL, png(2), png(3) + b"fatal once", FATAL, png(4)]
    pictures = [store(one) for one in data]
    results = decoded(*pictures)
    assert [result.outcome for result in results] == [
        *(Outcome.OK, Outcome.DECODER_DIED, Outcome.OK),
        *(Outcome.OK, Outcome.DECODER_DIED, Outcome.OK),
    ]
    assert results[1].detail == "status -6, 2 times"
    for picture, result in zip(pictures, results, strict=True):
        if result.outcome is Outcome.OK:
            example(picture, result)


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_a_picture_that_keeps_its_process_busy_for_ever_costs_itself_alone(
    store: Callable[[bytes], Picture],
) -> None:
    one, busy, other = decoded(*map(store, (png(3), png(1) + b"busy", png(4))))
    assert (busy.outcome, busy.detail) == (
        Outcome.CORRUPT,
        "takes more than 10 s of CPU to decode",
    )
    assert (one.outcome, other.outcome) == (Outcome.OK, Outcome.OK)


@pytest.mark.usefixtures("faulty")
def test_a_process_that_waits_for_ever_costs_its_picture_alone(
    store: Callable[[bytes], Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 2.0)
    one, asleep, other = decoded(*map(store, (png(3), png(1) + b"asleep", png(4))))
    assert (asleep.outcome, asleep.detail) == (
        Outcome.DECODER_DIED,
        "no answer within 2 s, 2 times",
    )
    assert (one.outcome, other.outcome) == (Outcome.OK, Outcome.OK)


@pytest.mark.usefixtures("faulty")
def test_pictures_that_come_during_a_restart_keep_their_order(
    store: Callable[[bytes], Picture],
) -> None:
    pictures = [store(FATAL), *(store(png(grey, side=40 + grey)) for grey in range(30))]

    async def decode() -> list[Decoded]:
        async with Decoder(OPTIONS) as decoder:
            tasks = []
            for picture in pictures:
                tasks.append(asyncio.create_task(decoder.decode(picture)))
                await asyncio.sleep(0.1)  # over the time of two starts
            return await asyncio.gather(*tasks)

    results = asyncio.run(asyncio.wait_for(decode(), 60))
    assert results[0].outcome is Outcome.DECODER_DIED
    assert [r.size for r in results[1:]] == [(40 + grey, 40 + grey) for grey in range(30)]


def test_a_process_that_cannot_start_again_is_an_error_and_no_hang(
    store: Callable[[bytes], Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def decode() -> list[Decoded | BaseException]:
        async with Decoder(OPTIONS) as decoder:
            decoder._process.kill()
            monkeypatch.setattr(module.sys, "executable", "/bin/false")
            first = decoder.decode(store(png(1)))
            results = await asyncio.gather(first, return_exceptions=True)
            return results + await asyncio.gather(
                decoder.decode(store(png(2))), return_exceptions=True
            )

    for error in asyncio.run(asyncio.wait_for(decode(), 60)):
        assert isinstance(error, WorkError)
        assert "cannot start: status 1" in str(error)


def test_what_a_library_prints_of_a_broken_picture_reaches_nobody(
    store: Callable[[bytes], Picture], capfd: pytest.CaptureFixture[str]
) -> None:
    file = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(file, "TIFF", compression="tiff_lzw")
    data = bytearray(file.getvalue())
    data[2000:20_000] = b"\xff" * 18_000
    (result,) = decoded(store(bytes(data)))
    assert result.outcome is Outcome.CORRUPT
    assert capfd.readouterr().err == ""


def test_a_spool_that_cannot_be_written_is_an_error_and_no_outcome(
    store: Callable[[bytes], Picture],
) -> None:
    good = store(png(1))
    lost = good._replace(candidates=f"{good.candidates}/missing/candidates")

    async def decode() -> list[Decoded | BaseException]:
        async with Decoder(OPTIONS) as decoder:
            return await asyncio.gather(
                decoder.decode(lost), decoder.decode(good), return_exceptions=True
            )

    error, result = asyncio.run(asyncio.wait_for(decode(), 60))
    assert isinstance(error, OSError)
    assert isinstance(result, Decoded)
    assert result.outcome is Outcome.OK


def test_a_disk_that_takes_a_part_at_a_time_gets_all(
    store: Callable[[bytes], Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:100])

    monkeypatch.setattr(module, "FileIO", Slow)
    pictures = [store(png(1)), store(png(2))]
    for picture, result in [(it, module.decode(it, OPTIONS)) for it in pictures]:
        example(picture, result)


def test_an_answer_comes_as_it_was_sent() -> None:
    spans = ((Crop(1, 2, 3, 3), Span(0, 9)), (Crop(4, 5, 3, 3), Span(9, 8)))
    for answer in (
        Decoded(Outcome.OK, "one", (7, 9), b"hash", spans),
        Decoded(Outcome.TOO_SMALL, None, (1, 2)),
        Decoded(Outcome.NOT_AN_IMAGE),
    ):
        received = pickle.loads(pickle.dumps(answer))
        assert received == answer
        assert received.outcome is answer.outcome


def test_a_limit_of_cpu_too_low_for_any_picture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start() -> None:
        async with Decoder(DatasetOptions()):
            pass

    monkeypatch.setattr(resource, "getrlimit", lambda _: (9, 9))
    with pytest.raises(WorkError, match="no process may take more than 9 s of CPU"):
        asyncio.run(start())
