import sys
from collections.abc import Sequence

import pytest
from apache_beam.io.aws.clients.s3.messages import S3ClientError
from apache_beam.io.filesystem import BeamIOError

from pipelines.command import cli
from pipelines.command.stores import store_reason

NO_CREDENTIALS = BeamIOError(
    "exists() operation failed", {"s3://bucket/x": S3ClientError("Unable to locate credentials")}
)


@pytest.mark.usefixtures("keep_logging_and_signals")
def test_a_store_that_refuses_ends_a_command_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main(arguments: Sequence[str]) -> None:
        raise NO_CREDENTIALS

    with pytest.raises(SystemExit) as left:
        cli.run(main, leave=sys.exit)
    assert left.value.code == 1
    assert capsys.readouterr().err == (
        "failed: s3://bucket/x: Unable to locate credentials: set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY\n"
    )


def test_a_reason_in_a_sentence_that_names_the_file_does_not_name_it_again() -> None:
    assert store_reason(NO_CREDENTIALS, named=False).startswith("Unable to locate credentials")
