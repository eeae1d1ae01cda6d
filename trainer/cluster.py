"""TF_CONFIG from the environment of Slurm or Kubernetes, for a training of several processes.

eval "$(python -m trainer.cluster)"     # export TF_CONFIG=…, in each process
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence

from pipelines.command import cli
from pipelines.command.cli import UsageError

PORT = 12345
_GROUP = re.compile(r"([^\[\],]*)\[([\d,-]+)\]([^\[\],]*)|([^\[\],]+)")


def tf_config(environment: Mapping[str, str]) -> str:
    """The value of TF_CONFIG for this process: all workers' addresses and its own number.

    Slurm (srun): SLURM_PROCID, SLURM_NTASKS_PER_NODE, and SLURM_STEP_NODELIST or
    SLURM_JOB_NODELIST. Kubernetes: WORKER_HOSTS, a comma-separated list of host names, and this
    process's number in JOB_COMPLETION_INDEX (an indexed Job, a JobSet) or at the end of HOSTNAME
    (a StatefulSet). TRAINER_PORT is the first port. Raises UsageError for anything else.
    """
    try:
        first_port = int(environment.get("TRAINER_PORT", PORT))
        if "SLURM_PROCID" in environment:
            nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
            tasks = int(environment.get("SLURM_NTASKS_PER_NODE", 1))
            addresses = [
                f"{host}:{first_port + task}" for host in expand(nodes) for task in range(tasks)
            ]
            index = int(environment["SLURM_PROCID"])
        elif "WORKER_HOSTS" in environment:
            hosts = environment["WORKER_HOSTS"].split(",")
            addresses = [f"{host.strip()}:{first_port}" for host in hosts]
            number = environment.get("JOB_COMPLETION_INDEX")
            index = int(number or environment["HOSTNAME"].rpartition("-")[2])
        else:
            raise UsageError("neither Slurm's SLURM_PROCID nor WORKER_HOSTS is in the environment")
    except KeyError as error:
        raise UsageError(f"{error.args[0]} is not in the environment") from None
    except ValueError as error:
        raise UsageError(f"the environment of this process: {error}") from None
    if not 0 <= index < len(addresses):
        raise UsageError(f"this is process {index}, but there are {len(addresses)} of them")
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    return json.dumps(cluster)


def expand(nodes: str) -> list[str]:
    """Slurm's short form of host names: 'a[1-2,07]b,c' -> a1b, a2b, a07b, c.

    Raises ValueError for what is none.
    """
    hosts: list[str] = []
    position = 0
    while position < len(nodes):
        group = _GROUP.match(nodes, position)
        if group is None or nodes[group.end() : group.end() + 1] not in ("", ","):
            raise ValueError(f"{nodes!r} is not a list of nodes")
        before, ranges, after, plain = group.groups()
        hosts += [plain] if plain else [f"{before}{n}{after}" for n in _numbers(ranges)]
        position = group.end() + 1
    if not hosts or nodes.endswith(","):
        raise ValueError(f"{nodes!r} is not a list of nodes")
    return hosts


def _numbers(ranges: str) -> list[str]:
    numbers = []
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        if not first or (dash and not last) or "-" in last:
            raise ValueError(f"[{ranges}] is not a range of nodes")
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise ValueError(f"[{ranges}] is not a range of nodes")
        numbers += [str(number).zfill(len(first)) for number in span]
    return numbers


def main(arguments: Sequence[str]) -> None:
    """Prints an export line for the shell."""
    parser = cli.ArgumentParser(
        "python -m trainer.cluster",
        "Prints 'export TF_CONFIG=…' from the environment of Slurm or Kubernetes.",
    )
    parser.parse_args(arguments)
    sys.stdout.write(f"export TF_CONFIG={shlex.quote(tf_config(os.environ))}\n")


if __name__ == "__main__":
    cli.run(main)
