"""How fast and how politely hosts are asked: nothing that decides bytes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CrawlOptions:
    """Speed and politeness: how the pictures are fetched, never what becomes of them."""

    crawlers: int = 1
    """In the whole job; each owns 1/N of every host's pace."""
    concurrency: int = 256
    """Requests in flight, a crawler."""
    timeout_s: float = 30.0
    """For one whole request, redirects on the same host included."""
    requests_per_host: float = 100.0
    """A second, over the whole job: the ceiling of a host family's pace."""
    user_agent: str = "imagenet-superres/0.1 (research dataset crawler; obeys robots.txt)"
