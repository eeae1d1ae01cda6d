"""What an object store or its client refuses, in words."""

import contextlib
from collections.abc import Iterator

_MODULES = ("apache_beam.io.", "boto3.", "botocore.", "google.")
_NO_CREDENTIALS = "Unable to locate credentials"


@contextlib.contextmanager
def store_errors(kind: type[Exception]) -> Iterator[None]:
    """Raises ``kind``, in words, for what an object store or its client refuses."""
    try:
        yield
    except Exception as error:
        if is_store_error(error):
            raise kind(store_reason(error)) from error
        raise


def is_store_error(error: BaseException) -> bool:
    """Whether an object store's client raised it."""
    return type(error).__module__.startswith(_MODULES)


def store_reason(error: BaseException, *, named: bool = True) -> str:
    """What an object store or its client refused; where ``named``, with the file it is about."""
    if isinstance(error, AttributeError) and error.__context__ is not None:
        return str(error.__context__)  # Beam fails to read the code of a broken connection
    details = getattr(error, "exception_details", None) or {}
    path, detail = next(iter(details.items()), ("", error))
    text = str(getattr(detail, "message", detail))
    if _NO_CREDENTIALS in text:
        text += ": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return f"{path}: {text}" if path and named else text
