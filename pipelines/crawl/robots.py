"""What a host's robots.txt allows, and for how long that holds."""

from protego import Protego

from pipelines.crawl.answer import Body, Failure
from pipelines.dataset.outcome import Outcome

MAX_ROBOTS_BYTES = 500 << 10
ROBOTS_AGAIN_S = 600.0
"""After which a robots.txt that a host could not give is asked for again."""

Rules = Protego | Failure | None
"""A host's robots.txt: its rules, why no URL may be asked for, or None where all may."""


def parse_robots(answer: Body | Failure) -> Rules:
    """What the answer to a request for robots.txt allows; closes its body.

    As RFC 9309 has it: no such file (4xx), or none after five redirects, allows everything; a
    host that cannot answer (5xx) allows nothing for a while, and only the first MAX_ROBOTS_BYTES
    count. An unreachable host's failure is that of every URL there.
    """
    if isinstance(answer, Body):
        data = answer.read()
        answer.close()
        if len(data) == MAX_ROBOTS_BYTES:  # what is left of the last line may say the opposite
            data = data[: data.rfind(b"\n") + 1]
        return Protego.parse(data.decode("utf-8-sig", errors="replace"))
    status = answer.http_status or 0
    if status >= 500:
        return Failure(Outcome.ROBOTS_DENIED, f"robots.txt answered {status}", status)
    if status or answer.outcome is Outcome.TOO_MANY_REDIRECTS or not answer.outcome.asked:
        return None
    return answer


def robots_again_s(rules: Rules) -> float:
    """For how long the answer of parse_robots holds."""
    if not isinstance(rules, Failure):
        return float("inf")
    # The next URL tries an absent host again, until that is given up.
    return 0.0 if rules.outcome.host_absent else ROBOTS_AGAIN_S
