"""The web server of `guda view`: its pages, on this machine only."""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from guda_cli.failures import explain
from guda_cli.view.guard import Guard
from guda_cli.view.names import file_name, plain_text
from guda_cli.view.worker import Worker

T = TypeVar("T")
HOST = "127.0.0.1"
WAITING = 8  # requests that may wait for the one that is being worked on
CONNECTIONS = 64
SLOWEST = 5.0  # seconds until a connection has asked for something
_DIGEST = re.compile(r"[0-9a-f]{64}")
_META = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
_BUSY = {"error": "too much is waiting already", "why": "", "fix": "try again in a moment"}


class Impatient(H11Protocol):
    """Ends a connection on which no whole request has come for too long."""

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._late = self.loop.call_later(SLOWEST, self._end_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._late.cancel()
        super().connection_lost(exc)

    def _end_if_silent(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._late = self.loop.call_later(SLOWEST, self._end_if_silent)


class Pages:
    """What each address gives. Work is done one by one; who comes when many wait is sent away."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._one, self._waiting = asyncio.Lock(), 0

    def application(self) -> Starlette:
        """The routes, all below the guard's folder."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/view.js", self.script),
                Route("/view.css", self.style),
                Route("/report", self.report),
                Route("/about", self.about),
                Route("/scored", self.scored),
                Route("/store", self.store),
                Route("/picture", self.picture, methods=["POST"]),
                Route("/gallery", self.gallery, methods=["POST"]),
            ],
            exception_handlers={OSError: _broken},
        )

    async def page(self, request: Request) -> Response:
        """The page itself."""
        return HTMLResponse(_text("view.html"))

    async def script(self, request: Request) -> Response:
        """Its script."""
        return Response(_text("view.js"), media_type="text/javascript")

    async def style(self, request: Request) -> Response:
        """Its style sheet: the report's, and its own."""
        return Response(_styles(), media_type="text/css")

    async def about(self, request: Request) -> Response:
        """The recipe, and what may be said beside a picture."""
        return await self._job("about")

    async def scored(self, request: Request) -> Response:
        """The cards of what was scored."""
        return await self._job("scored")

    async def store(self, request: Request) -> Response:
        """What the store has."""
        return await self._job("store")

    async def report(self, request: Request) -> Response:
        """What `guda report --html` writes, under the page's own policy."""
        done = await self._in_turn(lambda: self.worker.command(["report", "--html", "-"]))
        if done is None:
            return JSONResponse(_BUSY, 503)
        if done.code:
            return Response(done.err, 409, media_type="text/plain")
        said = _META.search(done.out.decode("utf-8", "replace"))
        own = said[1] if said else "default-src 'none'"
        policy = f"{own}; frame-ancestors 'none'"  # which a page cannot say of itself
        return HTMLResponse(done.out, headers={"content-security-policy": policy})

    async def picture(self, request: Request) -> Response:
        """Score the picture that the body is."""
        name = file_name(request.headers.get("x-file-name", ""))
        condition = plain_text(request.headers.get("x-condition", ""))
        data = await request.body()

        def work() -> tuple[int, dict[str, Any]]:
            with tempfile.TemporaryDirectory(prefix="guda-view-") as folder:
                (Path(folder) / name).write_bytes(data)
                return self.worker.job("card", Path(folder), file=name, condition=condition)

        return _told(await self._in_turn(work))

    async def gallery(self, request: Request) -> Response:
        """Draw an image again without its groups; the body is the digest of its pixels."""
        said = (await request.body())[:65].decode("latin-1")
        if not _DIGEST.fullmatch(said):
            return JSONResponse({"error": "no such image", "why": "", "fix": ""}, 400)
        return _told(await self._in_turn(lambda: self.worker.job("gallery", pixels=said)))

    async def _job(self, name: str) -> Response:
        return _told(await self._in_turn(lambda: self.worker.job(name)))

    async def _in_turn(self, work: Callable[[], T]) -> T | None:
        """What `work` gives, in a thread, one at a time; None where too many wait."""
        if self._waiting >= WAITING:
            return None
        self._waiting += 1
        try:
            async with self._one:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


def _told(found: tuple[int, dict[str, Any]] | None) -> Response:
    """The answer of a job; 409 where it could not be done."""
    if found is None:
        return JSONResponse(_BUSY, 503)
    code, answer = found
    return JSONResponse(answer, 409 if code else 200)


async def _broken(request: Request, err: Exception) -> Response:
    """The answer where this machine has no room, or no process, for the work."""
    known = explain(err)
    return JSONResponse({"error": known.message, "why": known.why, "fix": known.fix}, 409)


@cache
def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@cache
def _styles() -> str:
    from guda_cli.report.answers.page_gallery import GALLERY_CSS
    from guda_cli.report.pieces.css import style_sheet

    return style_sheet() + GALLERY_CSS + _text("view.css")


def bound(port: int) -> socket.socket:
    """A socket on this machine's own address; OSError where the port is taken. 0: any free port."""
    found = socket.socket()
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
    except OSError:
        found.close()
        raise
    return found


def serve(worker: Worker, place: socket.socket, guard: Guard, idle: float | None) -> None:
    """Serve until Ctrl-C, or until nobody has asked for anything for `idle` seconds."""
    guard.inner = Pages(worker).application()
    server = uvicorn.Server(
        uvicorn.Config(
            guard,
            http=Impatient,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
    )

    def watch() -> None:
        while not server.should_exit:
            server.should_exit = idle is not None and worker.idle > idle
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        server.run(sockets=[place])
    finally:
        server.should_exit = True
