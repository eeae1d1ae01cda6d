"""Clusters that run a job without its driver: asked before it begins, while it runs, to stop it."""

import logging
import re
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import requests

from pipelines.command.cli import WorkError, allow_clean_up

_logger = logging.getLogger(__name__)

ANSWERS_S = 10.0
_APPEARS_S = 5.0
_STOPS_S = 30.0
_LOST_S = 300.0
_POLL_S = 1.0


class JobState(Enum):
    """What a cluster says of a job."""

    RUNS = "runs"
    """Or will, or is being cancelled: it may still write."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """The cluster answers, and has no such job."""


class NoAnswerError(Exception):
    """A cluster does not answer, or not as one of its kind does."""


@dataclass(frozen=True)
class RemoteJob:
    """A job on a cluster."""

    name: str
    """Its own: no other job of a build has it."""
    id: str = ""
    """The cluster's; empty until it is known, and where a job server keeps it for itself."""
    is_submitted: bool = False

    def __str__(self) -> str:
        return f"job {self.id or self.name}"


@dataclass(frozen=True)
class Cluster(ABC):
    """Where jobs run without their driver. ``address`` is where it is asked."""

    kind: ClassVar[str]
    address: str

    @abstractmethod
    def state(self, job: RemoteJob) -> JobState:
        """Raises NoAnswerError."""

    @abstractmethod
    def cancel(self, job: RemoteJob) -> None:
        """Asks for the job's end, without waiting for it. Raises NoAnswerError."""

    @abstractmethod
    def how_to_stop(self, job: RemoteJob) -> str:
        """What a person does who wants the job to end."""

    def why(self, job: RemoteJob) -> str:
        """What the cluster says of a failed job, as long as it may be."""
        return ""

    @abstractmethod
    def refuse_wrong_start(self, crawlers: int) -> None:
        """Raises UsageError where a job with so many crawlers cannot begin."""

    @property
    def is_here(self) -> bool:
        """Whether its workers see this machine's files."""
        return False

    def to_json(self, job: RemoteJob) -> dict[str, str]:
        """What a lease remembers of a job."""
        return {"cluster": self.kind, "address": self.address, "name": job.name, "id": job.id}

    def wait(self, job: RemoteJob) -> JobState:
        """How a job ends.

        Raises WorkError where nobody has answered for five minutes: less may be a restart of what
        lies between.
        """
        answered, is_told = time.monotonic(), False
        while True:
            try:
                state = self.state(job)
                if state is not JobState.RUNS:
                    return state
                answered, is_told = time.monotonic(), False
            except NoAnswerError as error:
                silent_s = time.monotonic() - answered
                if silent_s > _LOST_S:
                    raise WorkError(
                        f"{self.address} has not answered for {silent_s:.0f} s ({error})"
                    ) from None
                if not is_told:
                    _logger.warning("%s does not answer (%s): asked again", self.address, error)
                is_told = True
            time.sleep(_POLL_S)

    def stop(self, job: RemoteJob, within_s: float | None = None) -> bool:
        """Ends a job; whether it is seen to have ended within that time, or half a minute."""
        within_s = within_s or _STOPS_S
        allow_clean_up(within_s + 2 * ANSWERS_S)
        began, is_asked = time.monotonic(), False
        while True:
            with suppress(NoAnswerError):
                if self.state(job) is JobState.RUNS:
                    if not is_asked:
                        self.cancel(job)
                        is_asked = True
                # One that was being submitted may yet appear.
                elif job.id or is_asked or time.monotonic() - began > _APPEARS_S:
                    return True
            if time.monotonic() - began > within_s:
                return False
            time.sleep(_POLL_S / 4)

    def not_stopped(self, job: RemoteJob) -> str:
        """What is to be said where ``stop`` saw no end."""
        return (
            f"{job} was not seen to stop at {self.address} and may still run: "
            f"{self.how_to_stop(job)}; the same command goes on once it is over"
        )


def with_scheme(address: str) -> str:
    """The address of a REST server as it may be typed, as a URL without a last slash."""
    address = address.strip().rstrip("/")
    return address if "://" in address else f"http://{address}"


def rest(method: str, url: str, *, may_be: tuple[int, ...] = ()) -> Any:
    """The JSON of an answer, as Flink and Spark give it; None for a status of ``may_be``.

    Raises NoAnswerError.
    """
    try:
        answer = requests.request(method, url, timeout=ANSWERS_S)
        if answer.status_code in may_be:
            return None
        answer.raise_for_status()
        return answer.json()
    except requests.HTTPError as error:
        raise NoAnswerError(f"HTTP status {error.response.status_code}") from error
    except requests.JSONDecodeError as error:
        raise NoAnswerError("no JSON") from error
    except (requests.RequestException, ValueError) as error:
        raise NoAnswerError(_in_words(error)) from error


def _in_words(error: Exception) -> str:
    """What stands innermost in the text of a failed connection."""
    found = re.findall(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    if found:
        return found[-1].strip()
    return "no answer in time" if isinstance(error, requests.Timeout) else type(error).__name__
