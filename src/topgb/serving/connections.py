"""Connections of clients that are slow, silent or no HTTP clients at all."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from topgb.serving.problems import MEDIA_TYPE, problem_bytes

MOST_CONNECTIONS = 512
# The seconds within which a request's head must arrive, and the rest of a body that was refused.
HEAD_SECONDS = 10.0


class Connection(H11Protocol):
    """uvicorn's connection, with a deadline whenever the server waits for the client.

    uvicorn itself waits without end for a client that sends half of a head.
    """

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._heard = self.loop.time()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """Take the connection; where there are too many, close the one that has been idle longest."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            idle = (one for one in self.connections if isinstance(one, Connection) and one.idle)
            # This one at least is idle.
            min(idle, key=lambda one: one._heard).transport.close()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the connection."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._heard = self.loop.time()
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        # The deadline is also needed if half of the next head has arrived: uvicorn waits for the rest without one.
        if self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem, unless an answer is on its way."""
        body = problem_bytes(400, "this is no request of HTTP/1.1; see /docs")
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        try:
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass
        self.transport.close()

    def _watch(self) -> None:
        if not self.idle:
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.idle:
            self.transport.abort()
