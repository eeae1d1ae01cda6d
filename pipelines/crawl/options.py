"""How fast and how politely hosts are asked: nothing that decides bytes."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from pipelines import __version__
from pipelines.command.fields import option

PROXY_USER, PROXY_PASSWORD = "PROXY_USER", "PROXY_PASSWORD"


def _proxy(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"must be http://HOST:PORT or https://HOST:PORT, not {text!r}")
    if parts.username is not None:
        raise ValueError(
            f"shows a password to everyone on this machine: set {PROXY_USER} and {PROXY_PASSWORD}"
        )
    return text


def _user_agent(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"must be of printable characters, not {text!r}")
    return text


@dataclass(frozen=True)
class CrawlOptions:
    """Speed and politeness: how the pictures are fetched, never what becomes of them."""

    crawlers: int = option(
        1,
        "in the whole job, each with its part of every host's pace; required with a runner that "
        "is not embedded",
        default_text="one a core",
        at_least=1,
    )
    concurrency: int = option(256, "requests in flight at once, of each crawler", at_least=1)
    timeout_s: float = option(
        30.0,
        "seconds for one whole request, redirects on the same host included",
        flag="--timeout",
        metavar="S",
        above=0,
    )
    requests_per_host: float = option(
        100.0,
        "a second, over the whole job: the ceiling for a host and its family",
        metavar="N",
        above=0,
    )
    user_agent: str = option(
        f"imagenet-superres/{__version__} (research dataset crawler; obeys robots.txt)",
        "tell hosts who asks",
        convert=_user_agent,
    )
    proxy: str | None = option(
        None,
        "http:// or https://, by which every picture is fetched; user and password from the "
        f"environment: {PROXY_USER}, {PROXY_PASSWORD}",
        metavar="URL",
        default_text="none",
        convert=_proxy,
    )
