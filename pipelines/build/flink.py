"""A Flink cluster, by its REST interface."""

import logging
import re
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from pipelines.build.cluster import Cluster, JobState, NoAnswerError, RemoteJob, rest, with_scheme
from pipelines.build.engine import is_loopback
from pipelines.command.cli import UsageError

_logger = logging.getLogger(__name__)

_STATES = {
    "FINISHED": JobState.DONE,
    "FAILED": JobState.FAILED,
    "CANCELED": JobState.CANCELLED,
}
_JAR_VERSION = re.compile(r"flink-(\d+\.\d+)-job-server")


@dataclass(frozen=True)
class Flink(Cluster):
    """A Flink cluster. ``address`` is that of its JobManager, with the scheme."""

    kind = "flink"
    parallelism: int = -1
    """Of the job."""
    jar: str = ""
    """Beam's job server for it, where the options name one."""

    @classmethod
    def of(cls, beam: PipelineOptions) -> Self | None:
        """The cluster of --flink_master, where the options name one."""
        options = beam.view_as(FlinkRunnerOptions)
        if options.flink_master.strip().startswith("["):  # Beam starts one for the job
            return None
        address = with_scheme(options.flink_master)
        return cls(address, options.parallelism, options.flink_job_server_jar or "")

    def state(self, job: RemoteJob) -> JobState:
        """Raises NoAnswerError."""
        if not job.id:
            return self._state_by_name(job.name)
        found = self._ask("GET", f"jobs/{job.id}", may_be=(404,))
        return _STATES.get(found["state"], JobState.RUNS) if found else JobState.UNKNOWN

    def cancel(self, job: RemoteJob) -> None:
        """Raises NoAnswerError."""
        named = [] if job.id else self._named(job.name)
        running = [found["jid"] for found in named if found["state"] not in _STATES]
        for job_id in [job.id] if job.id else running:
            self._ask("PATCH", f"jobs/{job_id}?mode=cancel", may_be=(404, 409))

    def how_to_stop(self, job: RemoteJob) -> str:
        """What a person does who wants the job to end."""
        return f"curl -X PATCH '{self.address}/v1/jobs/{job.id or 'ID'}?mode=cancel'"

    def why(self, job: RemoteJob) -> str:
        """The stack that Flink keeps of a failed job."""
        try:
            found = self._ask("GET", f"jobs/{job.id}/exceptions", may_be=(404,)) or {}
        except NoAnswerError:
            return ""
        entries = found.get("exceptionHistory", {}).get("entries", [])
        return str(entries[0]["stacktrace"] if entries else found.get("root-exception") or "")

    @property
    def is_here(self) -> bool:
        """Whether all TaskManagers are processes of this machine, and not in containers of it.

        A JobManager at loopback does not tell: it may be the near end of a port-forward.
        """
        if not is_loopback(self.address):
            return False
        try:
            hosts = self._hosts()
        except NoAnswerError:
            return False
        return bool(hosts) and all(map(_is_of_this_machine, hosts))

    def refuse_wrong_start(self, crawlers: int) -> None:
        """Raises UsageError where no job can begin; warns of what makes one wait."""
        if 0 < self.parallelism < crawlers:
            raise UsageError(
                f"--crawlers {crawlers} is more than --parallelism {self.parallelism}: the others "
                "would wait, and with them their part of every host's pace; give both"
            )
        try:
            found = self._ask("GET", "overview")
            version, slots = str(found["flink-version"]), int(found["slots-total"])
            running, hosts = int(found["jobs-running"]), self._hosts()
        except (NoAnswerError, KeyError, TypeError) as error:
            raise UsageError(
                f"no Flink answers at {self.address} ({error}): is --flink_master right, and does "
                "it reach the JobManager's REST port?"
            ) from None
        self._refuse_version(".".join(version.split(".")[:2]))
        if 0 < slots < self.parallelism:
            _logger.warning(
                "%s has %d task slots, fewer than --parallelism %d: unless it starts more, the job "
                "waits for them and fails",
                *(self.address, slots, self.parallelism),
            )
        if running:
            _logger.warning(
                "%d other job(s) run at %s: on the same worker pools two jobs end each other's "
                "workers",
                *(running, self.address),
            )
        for host, managers in Counter(hosts).items():
            if managers > 1:
                _logger.warning(
                    "%d TaskManagers are on %s: each needs a worker pool of its own, or they end "
                    "each other's workers",
                    *(managers, host),
                )

    def _refuse_version(self, version: str) -> None:
        known = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
        if version not in known:
            raise UsageError(
                f"{self.address} is Flink {version}, and Beam runs on {', '.join(known)}"
            )
        named = _JAR_VERSION.search(self.jar)
        if named and named[1] != version:
            raise UsageError(
                f"{self.address} is Flink {version}, but --flink_job_server_jar is for {named[1]}"
            )

    def _hosts(self) -> list[str]:
        """Of each TaskManager."""
        found = self._ask("GET", "taskmanagers")["taskmanagers"]
        return [_host(manager["id"]) for manager in found]

    def _state_by_name(self, name: str) -> JobState:
        states = [_STATES.get(job["state"], JobState.RUNS) for job in self._named(name)]
        if JobState.RUNS in states:
            return JobState.RUNS
        return states[-1] if states else JobState.UNKNOWN

    def _named(self, name: str) -> list[Any]:
        found = self._ask("GET", "jobs/overview")["jobs"]
        return [job for job in found if job["name"] == name]

    def _ask(self, method: str, path: str, *, may_be: tuple[int, ...] = ()) -> Any:
        return rest(method, f"{self.address}/v1/{path}", may_be=may_be)


def _host(manager: str) -> str:
    """Of a TaskManager's id, such as 10.0.0.7:41131-5f2a1c."""
    return urlsplit(f"//{manager.rpartition('-')[0]}").hostname or manager


def _is_of_this_machine(host: str) -> bool:
    try:
        for family, *_, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind(address)  # another machine's address cannot be bound
        return True
    except OSError:
        return False
