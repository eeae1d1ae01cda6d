import io

from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.attempt_table import Fetched, read_table, write_table
from pipelines.dataset.examples import Crop
from pipelines.dataset.outcome import Outcome, Row
from pipelines.dataset.tfrecord import Span

OFFSET = st.integers(0, 2**45)
SPANS = st.builds(Span, OFFSET, OFFSET)
CROPS = st.builds(Crop, *[st.integers(0, 2**20)] * 4)
FETCHED = st.lists(
    st.builds(
        Fetched,
        st.builds(Row, st.sampled_from(Outcome), image_id=st.text(max_size=5)),
        st.none() | SPANS,
        st.none() | st.binary(max_size=4),
        st.lists(st.tuples(CROPS, SPANS), max_size=3).map(tuple),
    ),
    max_size=5,
)


@given(FETCHED)
def test_a_table_gives_its_lines_back_sorted(fetched: list[Fetched]) -> None:
    file = io.BytesIO()
    write_table(file, fetched)
    assert read_table(file) == sorted(fetched, key=lambda line: line.row.sort_key)
