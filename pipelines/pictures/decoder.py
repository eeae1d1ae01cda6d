"""Pictures are decoded, cut and degraded in a process of its own.

A picture may kill the process that decodes it, or keep it for ever. The crawler then starts another
one and tries the picture once more: only the picture is lost, not the crawl. Neither the picture's
bytes nor its examples pass between the two: they lie in the shard's spool, and offsets are told.
"""

import asyncio
import contextlib
import math
import os
import pickle
import resource
import signal
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass
from io import FileIO
from typing import Any, BinaryIO, NamedTuple, Self

from pipelines.command.child_process import end_with_parent
from pipelines.command.cli import WorkError
from pipelines.dataset.examples import Crop, Original
from pipelines.dataset.options import DatasetOptions
from pipelines.dataset.outcome import Outcome, flat_crops
from pipelines.dataset.tfrecord import Span, frame_record, unframe_record
from pipelines.pictures.errors import PictureError
from pipelines.pictures.images import crop_boxes, examples_of

_TRIES = 2
# Of CPU for one picture. The largest that is let in takes two.
_CPU_LIMIT_S = 10
# Without an answer on the same picture. A process that waits for a disk takes no CPU.
_PATIENCE_S = 60.0
_LENGTH = struct.Struct("<I")
_READY = b"ready"
_READ_BYTES = 64 << 10


class Picture(NamedTuple):
    """A picture in a spool, and where its examples go."""

    originals: str
    original: Span
    candidates: str


@dataclass(frozen=True)
class Decoded:
    """What became of a picture."""

    outcome: Outcome
    detail: str | None = None
    size: tuple[int, int] | None = None
    phash: bytes | None = None
    examples: tuple[tuple[Crop, Span], ...] = ()
    """Of each crop, where it lies among the candidates."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Of plain values: a pickle of so many classes takes thrice the time, on both sides."""
        examples = [(it.x, it.y, it.width, it.height, *span) for it, span in self.examples]
        return _decoded, (str(self.outcome), self.detail, self.size, self.phash, examples)


def _decoded(
    outcome: str,
    detail: str | None,
    size: tuple[int, int] | None,
    phash: bytes | None,
    examples: list[tuple[int, ...]],
) -> Decoded:
    spans = tuple((Crop(*values[:4]), Span(*values[4:])) for values in examples)
    return Decoded(Outcome(outcome), detail, size, phash, spans)


@dataclass
class _Waiting:
    picture: Picture
    future: asyncio.Future[Decoded]
    tries: int = 0


class Decoder:
    """The crawler's side: an async context manager around the process."""

    def __init__(self, options: DatasetOptions) -> None:
        self._options = options
        self._waiting: deque[_Waiting] = deque()
        self._started = False
        self._hangs = False

    async def __aenter__(self) -> Self:
        await self._start()
        self._started = True
        self._reader = asyncio.create_task(self._read())
        self._watch = asyncio.create_task(self._end_what_hangs())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        self._watch.cancel()
        await asyncio.wait([self._reader, self._watch])
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def decode(self, picture: Picture) -> Decoded:
        """Decodes, cuts and degrades a picture. Raises WorkError where no process starts."""
        if self._reader.done():
            self._reader.result()
        waiting = _Waiting(picture, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._started:  # otherwise a restart sends it, in its turn
            self._send(picture)
        return await waiting.future

    async def _start(self) -> None:
        _, most_s = resource.getrlimit(resource.RLIMIT_CPU)
        if 0 <= most_s < 2 * _CPU_LIMIT_S:  # which no picture is to be blamed for
            raise WorkError(
                f"no process may take more than {most_s} s of CPU here, and decoding takes up to "
                f"{_CPU_LIMIT_S} s a picture: allow more (ulimit -t)"
            )
        self._process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-c",
                "from pipelines.pictures.decoder import main; main()",
                str(os.getpid()),
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C, which reaches a whole group, would meet it before it can ignore it.
            process_group=0,
            # There is a process a core already, and products here are small.
            env={"OPENBLAS_NUM_THREADS": "1", **os.environ},
        )
        assert self._process.stdout is not None  # it is a pipe
        self._send(self._options)
        try:
            await self._process.stdout.readexactly(len(_READY))
        except asyncio.IncompleteReadError:
            status = await self._process.wait()
            raise WorkError(f"the decoder cannot start: status {status}") from None

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None  # it is a pipe
        data = pickle.dumps(message)
        # What a dead process does not take is sent to the next one.
        self._process.stdin.write(_LENGTH.pack(len(data)) + data)

    async def _read(self) -> None:
        """Hands the answers out, which come in the order of the questions."""
        assert self._process.stdout is not None  # it is a pipe
        try:
            while True:
                begun = b""
                while data := await self._process.stdout.read(_READ_BYTES):
                    begun = self._take_answers(begun + data)
                await self._restart()
        except Exception as error:
            for waiting in self._waiting:
                if not waiting.future.done():
                    waiting.future.set_exception(error)
            raise

    def _take_answers(self, data: bytes) -> bytes:
        """Hands out what has come; gives the begin of an answer that has not come as a whole."""
        start = 0
        while len(data) >= (body := start + _LENGTH.size):
            end = body + _LENGTH.unpack_from(data, start)[0]
            if end > len(data):
                break
            self._answer(pickle.loads(data[body:end]))
            start = end
        return data[start:]

    def _answer(self, answer: Decoded | OSError) -> None:
        future = self._waiting.popleft().future
        if future.done():
            return
        if isinstance(answer, OSError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    async def _end_what_hangs(self) -> None:
        """Kills a process that has had the same picture for that long; then it is restarted."""
        first = None
        while True:
            await asyncio.sleep(_PATIENCE_S)
            if self._waiting and self._waiting[0] is first:
                self._hangs = True
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            first = self._waiting[0] if self._waiting else None

    async def _restart(self) -> None:
        self._started = False
        status = await self._process.wait()
        reason = f"no answer within {_PATIENCE_S:g} s" if self._hangs else f"status {status}"
        self._hangs = False
        if self._waiting:
            self._waiting[0].tries += 1
            if status == -signal.SIGXCPU:
                detail = f"takes more than {_CPU_LIMIT_S} s of CPU to decode"
                self._answer(Decoded(Outcome.CORRUPT, detail))
            elif self._waiting[0].tries == _TRIES:
                detail = f"{reason}, {_TRIES} times"
                self._answer(Decoded(Outcome.DECODER_DIED, detail))
        await self._start()
        self._started = True
        for waiting in self._waiting:
            self._send(waiting.picture)


def main() -> None:
    """The process: options first, then pictures, until the crawler closes the pipe."""
    end_with_parent(int(sys.argv[1]))
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    options: DatasetOptions = _receive(questions)
    # Python's own errors are told, but not what libraries print of broken pictures.
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    answers.write(_READY)
    answers.flush()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (picture := _receive(questions)) is not None:
        answer: Decoded | OSError
        _allow_cpu(_CPU_LIMIT_S)
        try:
            answer = decode(picture, options)
        except OSError as error:  # of the spool, and no fault of the picture: no space, mostly
            answer = error
        data = pickle.dumps(answer)
        answers.write(_LENGTH.pack(len(data)) + data)
        answers.flush()


def _allow_cpu(seconds: int) -> None:
    """The system ends this process (SIGXCPU) when it has used so much from here on: no code that a
    picture keeps busy could do it."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if most < 0 else min(limit, most), most))


def _receive(questions: BinaryIO) -> Any:
    head = questions.read(_LENGTH.size)
    return pickle.loads(questions.read(*_LENGTH.unpack(head))) if head else None


def decode(picture: Picture, options: DatasetOptions) -> Decoded:
    """Appends a picture's examples to the candidates and says what became of it."""
    with FileIO(picture.originals) as originals:
        record = os.pread(originals.fileno(), picture.original.num_bytes, picture.original.offset)
    original = Original.from_bytes(unframe_record(record))
    try:
        size, phash, examples = examples_of(original, options)
    except PictureError as error:
        return Decoded(error.outcome, error.detail, error.size)
    spans = []
    with FileIO(picture.candidates, "a") as candidates:
        for example in examples:
            record = frame_record(example.to_bytes())
            # Where a process died, a part of a record may lie that no table knows.
            spans.append((example.crop, Span(candidates.tell(), len(record))))
            while record:  # of a full disk a part is taken
                record = record[candidates.write(record) :]
    flat = None
    if options.min_detail:
        every = len(crop_boxes(size, original.sha256, options))
        flat = flat_crops(every - len(spans), every) if len(spans) < every else None
    return Decoded(Outcome.OK, flat, size, phash, tuple(spans))
