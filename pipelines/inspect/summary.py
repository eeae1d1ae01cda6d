"""What the tables of a finished dataset tell of its lines: by host family, by class, by size."""

import functools
import re
from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.command.progress import Progress
from pipelines.dataset.folder import DatasetFolder
from pipelines.dataset.options import wnid_of
from pipelines.dataset.outcome import Outcome
from pipelines.lists.url_list import host_family

_COLUMNS = ["image_id", "url", "outcome", "width", "height", "num_bytes"]
_PORT = re.compile(r":\d*$")


class Summary:
    """Outcomes by host family and by class, and how large the pictures in the dataset were."""

    def __init__(self) -> None:
        self.families: dict[str, Counter[str]] = defaultdict(Counter)
        self.wnids: dict[str, Counter[str]] = defaultdict(Counter)
        self._sizes: list[npt.NDArray[np.int64]] = [np.empty((0, 3), np.int64)]

    def add(self, folder: DatasetFolder, shard: str) -> None:
        """Counts the lines of one shard. Raises OSError or ValueError."""
        path = folder.outcomes(shard)
        with folder.open(path) as file:
            try:
                columns = pq.read_table(file, columns=_COLUMNS).to_pydict()
            except pa.ArrowException as error:
                raise ValueError(f"{path}: {error}") from None
        sizes = []
        for image_id, url, outcome, *size in zip(*columns.values(), strict=True):
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
    """Of every table of outcomes."""
    summary = Summary()
    tables = folder.names("outcomes")
    with Progress("read", len(tables), unit="tables") as progress:
        for number, name in enumerate(tables, 1):
            summary.add(folder, name.partition(".")[0])
            progress.update(number)
    return summary
