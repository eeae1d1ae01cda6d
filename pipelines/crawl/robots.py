"""What a host allows robots: its robots.txt, for how long that holds, and X-Robots-Tag."""

import re
from collections.abc import Iterable

from protego import Protego

from pipelines.crawl.answer import Body, Failure
from pipelines.dataset.outcome import Outcome

MAX_ROBOTS_BYTES = 500 << 10
ROBOTS_AGAIN_S = 600.0
"""After which a robots.txt that a host could not give is asked for again."""

MAX_INTERVAL_S = 60.0
"""Between two requests: where a host wants more, no URL of it is asked for."""
_OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_AGENT_LINE = re.compile(r"(\s*(?:user-?agent|user agent)(?:\s*:|\s)\s*)([^#]*)", re.IGNORECASE)
# Protego takes a part of a robot's name for the name: these two are no part of one another.
_OURS, _ANOTHER = "ours", "another"

Rules = Protego | Failure | None
"""A host's robots.txt: its rules, why no URL may be asked for, or None where all may."""


def product_token(user_agent: str) -> str:
    """What robots.txt calls a robot: the first word of its User-Agent without the version."""
    return re.split(r"[\s/(*]", user_agent.strip(), maxsplit=1)[0].lower()


def parse_robots(answer: Body | Failure, robot: str) -> Rules:
    """What the answer to a request for robots.txt allows a product token; closes its body.

    As RFC 9309 has it: no such file (4xx), or none after five redirects, allows everything; a
    host that cannot answer (5xx) allows nothing for a while, and only the first MAX_ROBOTS_BYTES
    count. An unreachable host's failure is that of every URL there.
    """
    if isinstance(answer, Body):
        data = answer.read()
        answer.close()
        if len(data) == MAX_ROBOTS_BYTES:  # what is left of the last line may say the opposite
            data = data[: data.rfind(b"\n") + 1]
        lines = data.decode("utf-8-sig", errors="replace").splitlines()
        return Protego.parse("\n".join(_with_our_name(line, robot) for line in lines))
    status = answer.http_status or 0
    if status >= 500:
        return Failure(Outcome.ROBOTS_DENIED, f"robots.txt answered {status}", status)
    if status or answer.outcome is Outcome.TOO_MANY_REDIRECTS or not answer.outcome.asked:
        return None
    return answer


def _with_our_name(line: str, robot: str) -> str:
    """A line of robots.txt; one that names a robot says only whether that is ours."""
    found = _AGENT_LINE.match(line)
    if not found or found[2].strip() in ("", "*"):
        return line
    return found[1] + (_OURS if product_token(found[2]) == robot else _ANOTHER)


def refusal(rules: Rules, url: str) -> Failure | None:
    """Why a URL is not asked for, if so."""
    if not isinstance(rules, Protego):
        return rules
    if not rules.can_fetch(url, _OURS):
        return Failure(Outcome.ROBOTS_DENIED, "by robots.txt")
    if (wanted_s := interval_s(rules)) > MAX_INTERVAL_S:
        detail = f"robots.txt wants {wanted_s:g} s between two requests"
        return Failure(Outcome.RATE_LIMITED, detail)
    return None


def interval_s(rules: Rules) -> float:
    """The seconds that Crawl-delay and Request-rate want between two requests, else 0."""
    if not isinstance(rules, Protego):
        return 0.0
    delay_s, rate = rules.crawl_delay(_OURS) or 0.0, rules.request_rate(_OURS)
    per_request_s = rate.seconds / rate.requests if rate and rate.requests else 0.0
    return max(0.0, delay_s, per_request_s)


def opt_out(values: Iterable[str], robot: str) -> str | None:
    """The X-Robots-Tag line that asks not to use the picture, for all robots or for this one.

    A name holds for what follows it in its line, up to the next name.
    """
    for value in values:
        named = robot
        for part in value.lower().split(","):
            name, colon, directive = (text.strip() for text in part.partition(":"))
            if colon and name not in _VALUED and not re.search(r"\s", name):
                named = product_token(name) or robot
            else:
                directive = name
            if named == robot and directive in _OPT_OUT:
                return value
    return None


def robots_again_s(rules: Rules) -> float:
    """For how long the answer of parse_robots holds."""
    if not isinstance(rules, Failure):
        return float("inf")
    # The next URL tries an absent host again, until that is given up.
    return 0.0 if rules.outcome.host_absent else ROBOTS_AGAIN_S
