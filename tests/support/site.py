"""A web on loopback: a server that answers as it is told, and a site of pictures on it."""

import asyncio
import io
import random
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path

import skimage.data
from PIL import Image

Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(
    body: bytes = b"",
    status: str = "200 OK",
    headers: Mapping[str, str] | None = None,
    *,
    length: int | None = None,
) -> bytes:
    """A whole HTTP answer; ``length`` is what it claims of its body where it lies."""
    fields = {"Content-Length": str(len(body) if length is None else length), **(headers or {})}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


class LoopbackServer:
    """Answers each path with given bytes, or lets a coroutine talk; counts what was asked.

    ``routes`` maps a path, or a host's name and a path, to bytes, to several (one for each
    request, the last for ever) or to a coroutine function of the writer. An unknown path is 404.
    ``before`` is awaited first.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, bytes | list[bytes] | Talk] = {}
        self.requests: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.before: Callable[[str], Awaitable[None]] | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(context, started), daemon=True)
        self._thread.start()
        started.wait()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self, context: ssl.SSLContext | None, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # clients may leave at any time
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(context, started))

    async def _serve(self, context: ssl.SSLContext | None, started: threading.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        for listener in server.sockets:
            self._loop.remove_reader(listener.fileno())
        for _ in range(3):  # for what was just taken, which a closed server would not
            await asyncio.sleep(0)
        server.close()
        for writer in self._open:  # a task that is cancelled before it began ends nothing
            self._end(writer)
        await asyncio.sleep(0)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Coroutine[None, None, None]:
        self._open.add(writer)
        return self._answer(reader, writer)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        if self._stop.is_set() and writer.transport.get_write_buffer_size():
            writer.transport.abort()  # what a client does not read would keep it open

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.requests[path] += 1
            self.heads.append(head)
            if self.before:
                await self.before(path)
            host = head.lower().partition(b"\r\nhost: ")[2].partition(b"\r\n")[0].decode()
            here = host.partition(":")[0] + path
            missing = answer(status="404 Not Found")
            route = self.routes.get(here, self.routes.get(path, missing))
            if isinstance(route, list):
                route = route.pop(0) if len(route) > 1 else route[0]
            if isinstance(route, bytes):
                writer.write(route)
            else:
                await route(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._open.discard(writer)
            self._end(writer)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def crops(count: int, side: int = 64) -> Iterator[Image.Image]:
    """Different parts of four photographs."""
    names = ("astronaut", "chelsea", "coffee", "rocket")
    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in names]
    places = random.Random(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        left, top = (places.randrange(length - side) for length in photo.size)
        yield photo.crop((left, top, left + side, top + side))


class Site:
    """A web site of pictures, by path; answers whole, late, held back, or badly at first."""

    def __init__(self, server: LoopbackServer, bodies: Mapping[str, bytes]) -> None:
        self.server = server
        self.bodies = dict(bodies)
        self.held: set[str] = set()
        self.answer_well()

    def answer_well(self) -> None:
        self.held.clear()
        self._delay = random.Random(0)
        self._latest_s = 0.0
        self.server.before = self._before
        self.server.routes.update({path: answer(body) for path, body in self.bodies.items()})

    def answer_late(self, latest_s: float = 0.1) -> None:
        """Each after a while of its own, so in another order."""
        self._latest_s = latest_s

    def fail_first(self) -> None:
        """The first request of every URL is refused, fails, or is cut off."""
        for number, (path, body) in enumerate(self.bodies.items()):
            fault = answer(body[:100], length=len(body))
            if number % 2:
                fault = answer(status="500 Internal Server Error")
            if number == 2:  # it holds its whole host back for a second
                fault = answer(status="503 Service Unavailable")
            self.server.routes[path] = [fault, answer(body)]

    def write_list(self, file: Path, paths: Sequence[str], more: Sequence[str] = ()) -> Path:
        """The list of these pictures, and further lines."""
        lines = [f"n01440764_{n}\t{self.server.url(path)}" for n, path in enumerate(paths)]
        file.write_text("".join(f"{line}\n" for line in [*lines, *more]))
        return file

    async def _before(self, path: str) -> None:
        if self._latest_s and path != "/robots.txt":
            await asyncio.sleep(self._delay.uniform(0, self._latest_s))
        while path in self.held:  # noqa: ASYNC110  set from another thread
            await asyncio.sleep(0.02)

    def asked(self) -> Counter[str]:
        """How often each path was asked for, robots.txt left out."""
        return Counter(
            {path: n for path, n in self.server.requests.items() if path != "/robots.txt"}
        )
