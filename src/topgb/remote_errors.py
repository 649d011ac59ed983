"""Errors of file systems that are reached through fsspec, in one sentence each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from topgb.errors import InputError, TopgbError, printable


@contextmanager
def remote_errors(url: str, absent: Callable[[str], InputError]) -> Iterator[None]:
    """Errors of work on `url` become an `InputError` (by `absent` where there is no such file) or a `TopgbError`."""
    try:
        yield
    except TopgbError:
        raise
    except FileNotFoundError as error:
        # fsspec's HTTP calls a file missing whatever went wrong, and keeps what it was as the cause.
        cause = error.__cause__
        if cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in (404, 410):
            raise absent(url) from error
        raise _failed(url, cause) from error
    except PermissionError as error:
        raise InputError(f"cannot read {url}: permission denied; check your credentials for it") from error
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot read {url}: {printable(str(error))}") from error
    except Exception as error:
        # Each file system raises network errors of its own, without a common base class.
        raise _failed(url, error) from error


def _failed(url: str, error: BaseException) -> TopgbError:
    reason = printable(str(error)) or type(error).__name__
    return TopgbError(f"cannot read {url}: {reason}; check the address, your rights and the connection")
