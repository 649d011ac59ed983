"""How answers name options: as fields of a request, or as options of the server."""

import json
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from topgb.errors import printable, worded

FIELDS = {"model", "features", "encoding", "top", "threshold", "timeline"}
# Options of commands that neither a request nor the server has.
ABSENT = {"on_damaged"}


def in_requests(name: str, value: Any = None) -> str:
    """An option as a client writes it: `"threshold": 0.5`; those of the command are named as the server's."""
    if name in ABSENT:
        return ""
    if name not in FIELDS:
        flag = name.rstrip("_").replace("_", "-")
        return f"the server's option {flag}" if value is None else f"the server's option {flag} {printable(str(value))}"
    return f'"{name}"' if value is None else f'"{name}": {json.dumps(value, default=str)}'


class Worded:
    """An ASGI middleware in which messages name options as requests do."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        with worded(in_requests):
            await self._app(scope, receive, send)
