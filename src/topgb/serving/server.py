"""The process that listens: a socket, uvicorn, and an end that finishes what is being answered."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from topgb.errors import InputError, option
from topgb.serving.app import create_app
from topgb.serving.connections import Connection
from topgb.serving.service import Service


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`, 0 for any free one. Raises `InputError` where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"{option('host', host)} is no address: {error.strerror or error}; use 127.0.0.1") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise InputError(
            f"cannot listen at {host} port {port}: {error.strerror or error}; choose another port, or let the system "
            f"choose with {option('port', 0)}"
        ) from None
    return listening


def url_of(listening: socket.socket) -> str:
    """The address at which a browser finds what listens."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


OnStart = Callable[["Server"], None]


class Server(uvicorn.Server):
    """uvicorn's server, which calls back when it listens; `should_exit` set to true ends it.

    `unanswered` counts the requests that had begun when it was asked to end, and were cut off.
    """

    def __init__(self, config: uvicorn.Config, on_start: OnStart):
        super().__init__(config)
        self._on_start = on_start
        self.unanswered = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A block in which signals end the server: SIGHUP, too, unless it is ignored (`nohup`)."""
        with super().capture_signals():
            if _hears_signals() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                signal.signal(signal.SIGHUP, self.handle_exit)
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start(self)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        begun = set(self.server_state.tasks)
        await super().shutdown(sockets)
        # A second Ctrl-C leaves them running; where the time is up, uvicorn cancels them.
        self.unanswered = sum(not task.done() or task.cancelling() > 0 for task in begun)


def run(service: Service, listening: socket.socket, on_start: OnStart) -> int:
    """Answer requests until SIGTERM, SIGHUP or Ctrl-C comes; then finish those that have begun.

    Returns how many could not be finished: a second Ctrl-C ends at once, and so does the end of `drain_seconds`. In a
    thread other than the main one, no signal is handled.
    """
    config = uvicorn.Config(
        create_app(service),
        http=Connection,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(service.settings.drain_seconds),
    )
    with listening, _ending_quietly():
        server = Server(config, on_start)
        server.run([listening])
    return server.unanswered


def _hears_signals() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """A block after which the signals that ended the server, which uvicorn raises again, have no effect."""
    if not _hears_signals():
        yield
        return
    every = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in every if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, lambda number, frame: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
