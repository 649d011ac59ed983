"""HEAD wherever there is GET, as HTTP asks (RFC 9110): those who watch servers often ask so."""

from starlette.types import ASGIApp, Receive, Scope, Send


class Heads:
    """An ASGI middleware that answers HEAD as GET; the connection, which knows what was asked, leaves the body out."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
