"""Beam's way to s3://, without what makes it slow and noisy; imported for its effect.

Beam's own S3 file system makes a client of boto for every file and question (0.1 s of CPU), asks
again for ten minutes where a store is gone, with a traceback each time, and logs what the exception
says as well.
"""

import logging
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import Any, BinaryIO

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.filesystems import FileSystems

logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where it found credentials
logging.getLogger().addFilter(lambda record: record.module != "s3io")

_boto3 = boto3_client.boto3  # None without Beam's aws extra


@cache
def client(**settings: Any) -> Any:
    """Boto's client, one for the whole process: threads may share it.

    Beam's own client around it, which keeps the place in a file, they may not.
    """
    return _boto3.session.Session().client(**settings)


def read_range(path: str, offset: int, num_bytes: int) -> bytes:
    """So many bytes of an object, or fewer at its end, in one request: Beam would read 16 MB."""
    if not num_bytes:
        return b""  # such a range is none in HTTP, and would get the whole object
    bucket, key = s3io.parse_s3_path(path)
    asked, boto = f"bytes={offset}-{offset + num_bytes - 1}", _boto(path)
    try:
        data: bytes = boto.get_object(Bucket=bucket, Key=key, Range=asked)["Body"].read()
    except boto.exceptions.ClientError as error:
        if error.response["Error"]["Code"] == "InvalidRange":  # it begins at the object's end
            return b""
        raise
    return data


def upload(source: BinaryIO, path: str) -> None:
    """Uploads a file, which may get closed. The object appears whole or not at all."""
    bucket, key = s3io.parse_s3_path(path)
    _boto(path).upload_fileobj(source, bucket, key)


def _boto(path: str) -> Any:
    """The client with the settings that Beam's options give it."""
    options = FileSystems.get_filesystem(path)._options
    return s3io.S3IO(options=options).client.client


def _share_the_client() -> None:
    session = SimpleNamespace(Session=lambda: SimpleNamespace(client=client))
    boto3_client.boto3 = SimpleNamespace(session=session)


def _leave_retries_to_boto() -> None:
    """A request is made as often as AWS_MAX_ATTEMPTS says, and then the error is told."""
    s3io.retry = SimpleNamespace(
        with_exponential_backoff=lambda **_: lambda call: call,
        retry_on_server_errors_and_timeout_filter=None,
    )
    for kind in (s3io.S3IO, s3io.S3Downloader, boto3_client.Client):
        for name, method in list(vars(kind).items()):
            if isinstance(method, FunctionType) and hasattr(method, "__wrapped__"):
                setattr(kind, name, method.__wrapped__)


if _boto3 is not None:
    _share_the_client()
_leave_retries_to_boto()
