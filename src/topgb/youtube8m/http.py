"""HTTP: request a file, or the rest of one, and turn network errors into sentences."""

import http.client
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from urllib import error as url_error
from urllib import request as url_request

from topgb.version import __version__

_CHUNK_BYTES = 1 << 18
_BUSY = (408, 425, 429)
_RANGE_NOT_SATISFIABLE = 416
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-")


class FetchError(Exception):
    """The reason why a file could not be fetched; `again` says whether a later try may succeed."""

    def __init__(self, reason: str, again: bool):
        # A reason may quote the server, so escape control characters that a terminal would obey.
        super().__init__("".join(sign if sign.isprintable() else "?" for sign in reason)[:200])
        self.again = again


class NoRangeError(FetchError):
    """The server's file has no bytes beyond those that are already there."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    tries     tries in a row that bring no new byte of a file, before the file is given up
    wait      seconds before the second of these tries; each further wait is twice as long
    timeout   seconds without any data, before a connection counts as broken
    """

    tries: int = 5
    wait: float = 1.0
    timeout: float = 30.0


PATIENT = Patience()


def fetch_bytes(url: str, most: int, patience: Patience) -> bytes:
    """The content of `url`. Raises `FetchError`, also for content of more than `most` bytes."""
    for tried in range(patience.tries):
        try:
            with open_url(url, 0, patience.timeout) as response:
                return b"".join(chunks_of(response, most))
        except FetchError as error:
            if not error.again or tried == patience.tries - 1:
                raise
            time.sleep(patience.wait * 2**tried)
    raise AssertionError("patience has no tries")


@cache
def _opener() -> url_request.OpenerDirector:
    # Proxies and redirects work as usual, but only with HTTP(S): a server must not redirect us to a local file.
    opener = url_request.OpenerDirector()
    for handler in (
        url_request.ProxyHandler,
        url_request.HTTPHandler,
        url_request.HTTPSHandler,
        url_request.HTTPRedirectHandler,
        url_request.HTTPErrorProcessor,
        url_request.HTTPDefaultErrorHandler,
        url_request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def open_url(url: str, start: int, timeout: float) -> http.client.HTTPResponse:
    """The server's response to a request for `url` from byte `start` on. Raises `FetchError`, `NoRangeError`."""
    headers = {"User-Agent": f"topgb/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with _network_errors():
        response = _opener().open(url_request.Request(url, headers=headers), timeout=timeout)
    if response.status not in (200, 206):
        response.close()
        raise FetchError(f"the server answers {_status(response.status)}", again=False)
    return response


def first_byte(response: http.client.HTTPResponse) -> int:
    """The place in the file of the response's first byte; −1 if the server does not say."""
    if response.status == 200:
        return 0
    match = _CONTENT_RANGE.match(response.getheader("Content-Range") or "")
    return int(match[1]) if match else -1


def chunks_of(response: http.client.HTTPResponse, most: int | None = None) -> Iterator[bytes]:
    """The response's bytes as they arrive. Raises `FetchError` for fewer bytes than announced or more than `most`."""
    announced, received = response.length, 0
    # Asking for more than was announced would wait for a server that keeps the connection open.
    while announced is None or received < announced:
        with _network_errors():
            chunk = response.read1(_CHUNK_BYTES if announced is None else min(_CHUNK_BYTES, announced - received))
        if not chunk:
            break
        received += len(chunk)
        if most is not None and received > most:
            raise FetchError(f"it has more than {most:,} bytes", again=False)
        yield chunk
    if announced is not None and received < announced:
        raise FetchError(f"the connection broke {announced - received:,} bytes before the end", again=True)


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except url_error.HTTPError as error:
        error.close()
        kind = NoRangeError if error.code == _RANGE_NOT_SATISFIABLE else FetchError
        raise kind(f"the server answers {_status(error.code)}", error.code in _BUSY or error.code >= 500) from error
    except url_error.URLError as error:
        raise FetchError(_reason_of(error.reason), again=isinstance(error.reason, OSError)) from error
    except (http.client.InvalidURL, ValueError) as error:
        raise FetchError(f"the address cannot be used ({error})", again=False) from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(_reason_of(error), again=True) from error


def _status(code: int) -> str:
    return f"{code} {http.client.responses.get(code, '')}".strip()


def _reason_of(reason: object) -> str:
    message = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return message or type(reason).__name__
