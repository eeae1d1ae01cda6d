"""What the tables of a finished dataset tell of its lines: by host family, by class, by size."""

import functools
import re
from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import wnid_of
from pipelines.dataset.outcome import Outcome
from pipelines.inspect.outcome_report import shard_tables
from pipelines.lists.url_list import host_family

_COLUMNS = ["image_id", "url", "outcome", "width", "height", "num_bytes"]
_PORT = re.compile(r":\d*$")


class Summary:
    """Outcomes by host family and by class, and how large the pictures in the dataset were."""

    def __init__(self) -> None:
        self.families: dict[str, Counter[str]] = defaultdict(Counter)
        self.wnids: dict[str, Counter[str]] = defaultdict(Counter)
        self._sizes: list[npt.NDArray[np.int64]] = [np.empty((0, 3), np.int64)]

    def add(self, table: pa.Table) -> None:
        """Counts the lines of one shard, of which it needs _COLUMNS."""
        sizes = []
        rows = zip(*(table.column(name).to_pylist() for name in _COLUMNS), strict=True)
        for image_id, url, outcome, *size in rows:
            if outcome == Outcome.OK:
                sizes.append(size)
            if wnid := wnid_of(image_id or ""):
                self.wnids[wnid][outcome] += 1
            _, separator, rest = (url or "").partition("://")
            if separator:
                self.families[_family(rest.partition("/")[0])][outcome] += 1
        self._sizes.append(np.asarray(sizes, np.int64).reshape(-1, 3))

    def sizes(self) -> npt.NDArray[np.int64]:
        """Width, height and bytes of every picture in the dataset, int64 [pictures, 3]."""
        return np.concatenate(self._sizes)


@functools.lru_cache(1 << 16)
def _family(authority: str) -> str:
    """Of the part of a URL between '//' and the path, whatever the list has there."""
    return host_family(_PORT.sub("", authority.rpartition("@")[2]).lower())


def summarize(folder: DatasetFolder) -> Summary:
    """Of every table of outcomes. Raises OSError or ValueError where one cannot be read."""
    summary = Summary()
    for _, table in shard_tables(folder, _COLUMNS):
        summary.add(table)
    return summary
