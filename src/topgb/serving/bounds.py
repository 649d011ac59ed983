"""Bounds on requests: bytes of a body, bytes of all bodies together, and time."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from topgb.serving.measures import Measures
from topgb.serving.problems import RETRY, ProblemError
from topgb.serving.settings import Settings

# Around a file in a form there are the form's own lines.
_FORM_BYTES = 1 << 16
_SEND_SECONDS = 30.0
UPLOADS = "/v1/tag"


class Bounds:
    """An ASGI middleware that ends requests that are too long or too slow, or for which there is no room.

    Bodies of uploads go to files, at most `stored_bytes` of all together; those of others are held in memory, at most
    `held_bytes`.
    """

    def __init__(self, app: ASGIApp, settings: Settings, measures: Measures):
        self._app, self._settings = app, settings
        # The bytes taken by uploads (True) and by other bodies (False).
        self._taken = {True: 0, False: 0}
        measures.watch_bytes(lambda: self._taken[False], lambda: self._taken[True])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body counted and timed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(self, scope, receive, send)
        try:
            await self._app(scope, request.receive, request.send)
        except Exception:
            if not request.lost:
                raise
        finally:
            self._taken[request.upload] -= request.taken

    def most_bytes(self, path: str) -> int:
        """The most bytes of a body for `path`."""
        if path == UPLOADS:
            return self._settings.upload_bytes + _FORM_BYTES
        return self._settings.body_bytes

    def take(self, count: int, upload: bool) -> None:
        """Count bytes that have arrived. Raises `ProblemError` 429."""
        most = self._settings.stored_bytes if upload else self._settings.held_bytes
        if self._taken[upload] + count > most:
            raise ProblemError(429, "the server holds as many requests as it can; ask again in a little while", RETRY)
        self._taken[upload] += count

    @property
    def read_seconds(self) -> float:
        """The seconds within which a body must arrive."""
        return self._settings.read_seconds


class _Request:
    """The body and the answer of one request, passed on in parts."""

    def __init__(self, bounds: Bounds, scope: Scope, receive: Receive, send: Send):
        self._bounds, self._receive, self._send = bounds, receive, send
        self.upload = scope["path"] == UPLOADS
        self._most = bounds.most_bytes(scope["path"])
        length = Headers(scope=scope).get("content-length", "")
        self._announced = int(length) if length.isdecimal() else 0
        self._came = 0
        self._whole = False
        self._until = asyncio.get_running_loop().time() + bounds.read_seconds
        self.taken = 0
        self.lost = False

    async def receive(self) -> Message:
        """The next part of the body. Raises `ProblemError` 408, 413 or 429."""
        if self._whole:
            # Only the end of the connection can come now.
            return await self._receive()
        self._check()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            seconds = self._bounds.read_seconds
            raise ProblemError(408, f"the body did not come within {seconds:g} seconds; send less") from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self._came += count
            self._whole = not message.get("more_body", False)
            self._check()
            self._bounds.take(count, self.upload)
            self.taken += count
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer; a client that does not take it within half a minute is hung up on."""
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            self.lost = True
            raise

    def _check(self) -> None:
        if max(self._came, self._announced) > self._most:
            raise ProblemError(413, f"the body has more than {self._most:,} bytes; send less at once")
