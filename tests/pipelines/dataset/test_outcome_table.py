import io

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.outcome_table import SCHEMA, read_table, write_table

TEXT = st.none() | st.text(max_size=10)
INT = st.none() | st.integers(0, 2**31 - 1)
ROWS = st.lists(
    st.builds(
        Row,
        st.sampled_from(Outcome),
        image_id=TEXT,
        url=TEXT,
        line=st.none() | st.binary(max_size=10),
        http_status=INT,
        detail=TEXT,
        sha256=TEXT,
        num_bytes=st.none() | st.integers(0, 2**40),
        width=INT,
        height=INT,
        duplicate_of=TEXT,
    ),
    max_size=5,
)


def table(rows: list[Row]) -> bytes:
    file = io.BytesIO()
    write_table(file, rows)
    return file.getvalue()


@given(ROWS)
def test_a_table_gives_its_rows_back_sorted(rows: list[Row]) -> None:
    read = read_table(io.BytesIO(table(rows)))
    assert read == sorted(rows, key=lambda row: row.sort_key)


def test_columns_are_those_of_the_contract() -> None:
    written = pq.read_schema(io.BytesIO(table([])))
    assert written.equals(SCHEMA)
    assert written.names == [
        *("image_id", "url", "line", "outcome", "http_status", "detail"),
        *("sha256", "num_bytes", "width", "height", "duplicate_of"),
    ]
