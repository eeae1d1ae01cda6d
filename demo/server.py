"""A loopback web server that replays photographs, and a list of them with the usual decay."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from demo.photos import PHOTOS, SMALL

HOST = "127.0.0.1"
_PAGE = b"<!DOCTYPE html><title>Parked</title><p>This domain is for sale."


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bodies = {f"/{photo.name}": photo.read() for photo in (*PHOTOS, SMALL)} | {
        "/copy-of-coffee.png": PHOTOS[4].read(),
        "/broken-off.jpg": PHOTOS[3].read()[:20_000],
        "/parked.jpg": _PAGE,
    }

    def do_GET(self) -> None:
        """Answers with a file, a redirect or 404."""
        if self.path == "/moved.jpg":
            self._answer(301, b"", ("Location", "/rocket.jpg"))
        elif self.path in self.bodies:
            self._answer(200, self.bodies[self.path])
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def served(port: int) -> Iterator[str]:
    """The address of the running server; another port where ``port`` is taken."""
    try:
        server = ThreadingHTTPServer((HOST, port), _Handler)
    except OSError:
        server = ThreadingHTTPServer((HOST, 0), _Handler)
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_address[1]}"
        server.shutdown()


def photo_lines(address: str) -> list[list[str]]:
    """The list's lines of each photograph; two are there under several URLs."""
    lines = [[f"{photo.image_id}\t{address}/{photo.name}"] for photo in PHOTOS]
    by_name = dict(zip((photo.name for photo in PHOTOS), lines, strict=True))
    by_name["coffee.png"].append(f"n07929519_2\t{address}/copy-of-coffee.png")
    by_name["rocket.jpg"].append(f"n04099429_2\t{address}/moved.jpg")
    return lines


def other_lines(address: str) -> list[str]:
    """What else one meets in the list: most of it is gone."""
    return [
        f"n04099429_3\t{address}/rocket.jpg",
        f"{SMALL.image_id}\t{address}/{SMALL.name}",
        f"n04407686_2\t{address}/broken-off.jpg",
        f"n04407686_3\t{address}/parked.jpg",
        f"n02123045_2\t{address}/deleted.jpg",
        f"n02123045_3\t{address}/deleted-too.jpg",
        f"n11669921_2\thttp://{HOST}:1/refused.jpg",
        "n11669921_3\thttp://no-such-host.invalid/flower.jpg",
        "n11669921_4\thttp://192.168.0.1/private.jpg",
        "n11669921_5\tftp://ftp.example.org/flower.jpg",
        "a line that is no entry",
    ]
