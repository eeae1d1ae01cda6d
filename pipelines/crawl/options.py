"""How fast and how politely hosts are asked: nothing that decides bytes."""

from dataclasses import dataclass

from pipelines.command.fields import option


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
    concurrency: int = option(256, "requests in flight, a crawler", at_least=1)
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
        "imagenet-superres/0.1 (research dataset crawler; obeys robots.txt)", "tell hosts who asks"
    )
