"""The orders of a process that works on videos, and its end with the process that gives them."""

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any


def orders() -> Iterator[dict[str, Any]]:
    """The JSON objects in the lines of standard input, as they come.

    At the end of the input this process ends at once, whatever it is doing: the process that it works for has ended,
    perhaps by a SIGKILL, and a video may take hours.
    """
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    while True:
        yield asked.get()


def _listen(asked: "queue.SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin.buffer:
        asked.put(json.loads(line))
    os._exit(0)
