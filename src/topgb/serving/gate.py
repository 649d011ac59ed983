"""Which requests are let in: by the server's name in them, the page that they come from, and the token."""

import hmac
import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from topgb.errors import printable
from topgb.serving.problems import ProblemError, problem_response

# Paths that need no token: the page and its files, the documentation, and the check that the server runs.
OPEN = ("/", "/docs", "/openapi.json", "/healthz")
OPEN_FOLDER = "/page/"
_POLICY = (
    # The page runs its own script and nothing else; videos are played from the file that the user dropped.
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FOR_ALL = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
# Only answers that browsers show as pages need these headers, and each header costs some time.
_FOR_PAGES = [
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_PAGE = (b"content-type", b"text/html; charset=utf-8")


# An IPv6 address stands in brackets, since its colons would look like a port's.
_HOST = re.compile(r"(?:\[(?P<address>[^\[\]]*:[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]{0,5})?")


class Gate:
    """An ASGI middleware that lets requests in by `Host`, `Origin` and `Authorization`.

    A page of another site can have its visitor's browser send requests to this machine: a name of its own that resolves
    to it shows in `Host`, a plain request in `Origin`. Addresses as `Host` are let in, because no name stands behind
    them, and so are localhost and `hosts`.
    """

    def __init__(self, app: ASGIApp, token: str | None = None, hosts: Iterable[str] = ()):
        self._app, self._token = app, token
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                more = _FOR_ALL + _FOR_PAGES if _PAGE in headers else _FOR_ALL
                message = {**message, "headers": headers + more}
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
        except ProblemError as refused:
            await problem_response(refused.status, refused.detail, refused.headers)(scope, receive, send_safely)
        else:
            await self._app(scope, receive, send_safely)

    def _check(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        name = _name(host)
        if name not in self._hosts and not _is_address(name):
            raise ProblemError(
                403,
                f"this server is not called {printable(name)[:80]!r}; ask it by its address, or let it be started "
                "with that name as one of its hosts",
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise ProblemError(403, "another site's page asks, and only the server's own may; open its page")
        if self._token is None or path in OPEN or path.startswith(OPEN_FOLDER):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
            raise ProblemError(
                401,
                "the token is missing or wrong; send Authorization: Bearer and the server's token",
                {"www-authenticate": "Bearer"},
            )


def _name(host: str) -> str:
    """The name in `name:port`, or the address in `[address]:port` or without a port, in lower case.

    Raises `ProblemError` for what is none of these.
    """
    lower = host.lower()
    if _is_address(lower):
        return lower
    found = _HOST.fullmatch(lower)
    if found is None or (found["address"] is not None and not _is_address(found["address"])):
        raise ProblemError(
            400, f"the header Host is {printable(host)[:80]!r}; it must be a name or an address, and may have :PORT"
        )
    return found["address"] or found["name"] or ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
