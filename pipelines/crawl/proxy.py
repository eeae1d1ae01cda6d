"""A proxy between the crawler and all hosts."""

import base64
import os
from typing import NoReturn

from yarl import URL

from pipelines.command.cli import WorkError
from pipelines.crawl.options import PROXY_PASSWORD, PROXY_USER


class Proxy:
    """An http or https proxy. Its own failures are no host's: WorkError."""

    def __init__(self, url: str) -> None:
        self._url = URL(url)
        self.is_tls = self._url.scheme == "https"
        self.place = (self._url.raw_host or "", self._url.port or 0)
        """Its host and port."""

    def login(self) -> str:
        """The header with user and password, or nothing."""
        if not (user := os.environ.get(PROXY_USER)):
            return ""
        return f"Proxy-Authorization: {basic(user, os.environ.get(PROXY_PASSWORD, ''))}\r\n"

    def check_status(self, status: int) -> None:
        """Raises WorkError where an answer's status is the proxy's refusal of the crawler."""
        if status == 407:
            raise WorkError(
                f"the proxy {self._url} wants a user and a password (status 407): set {PROXY_USER} "
                f"and {PROXY_PASSWORD} in the environment of the workers"
            )

    def fail(self, error: Exception) -> NoReturn:
        """Raises WorkError: the proxy itself cannot be used."""
        raise WorkError(f"the proxy {self._url} takes no connection: {error}")


def basic(user: str, password: str) -> str:
    """A user and a password as a header has them (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
