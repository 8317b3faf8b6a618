"""Who may ask, and how much: every request passes here before anything else looks at it."""

from __future__ import annotations

import asyncio
import hmac
import http.cookies
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from guda_cli import typed_number
from guda_cli.view.neighbours import foreign

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 64 << 20  # of a request's body
SLOWEST = 30.0  # seconds for a body to arrive
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    421: "Misdirected Request",
}


class Refused(Exception):  # noqa: N818
    """A request that is not served; `status` says why, and nothing else does."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Guard:
    """Lets through what comes from the page that this process served to whoever has its address.

    The address holds a token, which is changed for a cookie at once. The cookie is for the pages' own
    unguessable folder: all ports of a machine share their cookies.
    """

    def __init__(self, port: int) -> None:
        self.inner: Application = _nothing
        self.port = port
        self.token, self._cookie = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.folder = f"/{secrets.token_urlsafe(9)}"
        self.name = f"guda-{port}"

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.port}/{self.token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # closed without a word
        try:
            await self._served(scope, receive, send)
        except Refused as refused:
            await _answer(send, refused.status)

    async def _served(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("client") and foreign(self.port, *scope["client"]):
            raise Refused(403)
        headers = _Headers(scope)
        self._check_origin(headers)
        if scope["method"] not in ("GET", "POST"):
            raise Refused(405)
        path = scope["raw_path"].decode("latin-1")
        if (
            scope["method"] == "GET"
            and _equal(path.removeprefix("/"), self.token)
            and not scope["query_string"]
        ):
            await self._admit(send)
            return
        if not _equal(headers.cookie(self.name), self._cookie) or not path.startswith(f"{self.folder}/"):
            raise Refused(403)
        if scope["method"] == "POST" and headers.one("origin") is None:
            raise Refused(403)  # browsers always send it
        inside = path.removeprefix(self.folder)
        body = await _body(headers, receive) if scope["method"] == "POST" else b""
        await self.inner(
            {**scope, "path": inside, "raw_path": inside.encode()}, _given(body, receive), _armed(send)
        )

    def _check_origin(self, headers: _Headers) -> None:
        """421 and 403 for other names of this machine, and for pages of others."""
        hosts = [f"127.0.0.1:{self.port}", f"localhost:{self.port}"]
        host = headers.one("host")
        if host not in hosts:
            raise Refused(421)
        if headers.one("origin") not in (None, f"http://{host}"):
            raise Refused(403)
        if headers.one("sec-fetch-site") not in (None, "same-origin", "none"):
            raise Refused(403)

    async def _admit(self, send: Send) -> None:
        cookie = f"{self.name}={self._cookie}; Path={self.folder}/; HttpOnly; SameSite=Strict"
        await _answer(send, 303, {"location": f"{self.folder}/", "set-cookie": cookie})


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise Refused(404)


class _Headers:
    """A request's headers; one that comes twice is refused where it matters."""

    def __init__(self, scope: Scope) -> None:
        self._all = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ]

    def one(self, name: str) -> str | None:
        found = [value for known, value in self._all if known == name]
        if len(found) > 1:
            raise Refused(400)
        return found[0] if found else None

    def cookie(self, name: str) -> str:
        try:
            parsed = http.cookies.SimpleCookie(self.one("cookie") or "")
        except http.cookies.CookieError:
            return ""
        return parsed[name].value if name in parsed else ""


def _equal(given: str, secret: str) -> bool:
    """In a time that does not tell how much of it was right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


async def _body(headers: _Headers, receive: Receive) -> bytes:
    """The whole body, once it is known to be small enough."""
    told = headers.one("content-length")
    if told is None or headers.one("transfer-encoding") is not None:
        raise Refused(411)  # browsers always know it
    length = typed_number.whole(told)
    if length is None or length > MOST_BYTES:
        raise Refused(413)
    found = bytearray()
    try:
        async with asyncio.timeout(SLOWEST):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refused(400)
                found += message.get("body", b"")
                if len(found) > MOST_BYTES:
                    raise Refused(413)
                if not message.get("more_body"):
                    return bytes(found)
    except TimeoutError:
        raise Refused(408) from None


def _given(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return left.pop() if left else await receive()

    return give


def _armed(send: Send) -> Send:
    """A `send` that puts the headers of all answers in; an answer's own policy stays."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            every = {"content-security-policy": POLICY, **HEADERS}
            more = [(k.encode(), v.encode()) for k, v in every.items() if k.encode() not in own]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sent


async def _answer(send: Send, status: int, headers: dict[str, str] | None = None) -> None:
    """A short answer; after a refusal the connection ends, for nobody has read what may still come."""
    body = b"" if headers else f"{status} {_REASONS[status]}\n".encode()
    told = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **(headers or {})}
    if not headers:
        told["connection"] = "close"
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(k.encode(), v.encode()) for k, v in told.items()],
    }
    await _armed(send)(start)
    await send({"type": "http.response.body", "body": body})
