"""Whether workers run the driver's code: their image may be older, or of another Python."""

import hashlib
import pickle
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines import __version__
from pipelines.command.cli import WorkError

_PACKAGE = Path(__file__).resolve().parents[1]


class Checked:
    """What a worker refuses to unpickle where it runs other code than the driver.

    By the time that other code shows by itself, it does so in a strange error or in other bytes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (identity(), pickle.dumps((type(self), self.__dict__)))


def _received(driver: Mapping[str, str], pickled: bytes) -> Any:
    for name, here in identity().items():
        if driver[name] != here:
            raise WorkError(
                f"the workers run {name} {here}, the driver {driver[name]}: build their image from "
                "this clone (deploy/README.md, Workers), or run the driver in it"
            )
    kind, values = pickle.loads(pickled)
    result = kind.__new__(kind)
    result.__dict__.update(values)
    return result


@cache
def identity() -> Mapping[str, str]:
    """What driver and workers must have in common."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "Python": ".".join(map(str, sys.version_info[:2])),
        "apache-beam": version("apache-beam"),
        "imagenet-superres": f"{__version__} (code {digest.hexdigest()[:8]})",
    }
