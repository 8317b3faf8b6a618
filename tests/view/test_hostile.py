# ruff: noqa: E501 - a kind of request a line
"""Requests that nobody should be served: all are refused, and the server is as quick afterwards."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from guda_cli.view.names import LONGEST, NAMELESS, file_name, plain_text
from tests.view.conftest import Viewed

REQUESTS = 1000


class Admitted:
    """What a browser knows that opened the address."""

    def __init__(self, viewed: Viewed) -> None:
        self.port, self.host = viewed.port, f"127.0.0.1:{viewed.port}"
        self.token = viewed.address.rpartition("/")[2]
        link = HTTPConnection(self.host)
        link.request("GET", f"/{self.token}")
        answer = link.getresponse()
        assert answer.status == 303
        self.folder = answer.headers["Location"]
        said = answer.headers["Set-Cookie"]
        link.close()
        assert said.endswith(f"; Path={self.folder}; HttpOnly; SameSite=Strict")
        self.cookie = said.partition(";")[0]

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        return self.ask("GET", path, None, **headers)

    def ask(self, method: str, path: str, body: bytes | None, **headers: str) -> tuple[int, bytes]:
        link = HTTPConnection(self.host, timeout=120)
        link.request(method, self.folder + path, body, {"Cookie": self.cookie, **headers})
        answer = link.getresponse()
        found = answer.status, answer.read()
        link.close()
        return found


@pytest.fixture(scope="module")
def admitted(viewed: Viewed) -> Admitted:
    return Admitted(viewed)


def text(method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body


def hostile(admitted: Admitted, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Kinds of requests, each right but for one thing, or wrong altogether."""
    host, cookie, folder = ("Host", admitted.host), ("Cookie", admitted.cookie), admitted.folder
    origin, small = ("Origin", f"http://{admitted.host}"), ("Content-Length", "4")

    def noise(n: int) -> str:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFG0123456789-_", k=n))

    pages = ["", "scored", "store", "about", "report", "view.js"]
    hosts = ["evil.example", f"evil.example:{admitted.port}", "127.0.0.1", "localhost:1", f"127.0.0.1:{admitted.port}.evil",
             f"user@{admitted.host}", f"[::1]:{admitted.port}", f"0.0.0.0:{admitted.port}", "", f"127.0.0.1:{admitted.port},x"]  # fmt: skip
    origins = ["http://evil.example", "null", "https://" + admitted.host, f"http://{admitted.host}.evil", "file://",
               "http://127.0.0.1:1", f"http://localhost:{admitted.port}"]  # fmt: skip
    names = ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/.guda/format.json", "//etc/passwd", "....//x",
             "view.html", "..\\..\\x", "%00", "view.js/../../server.py", "static/../jobs.py"]  # fmt: skip
    kinds: dict[str, Callable[[], bytes]] = {
        "host": lambda: text("GET", folder + rng.choice(pages), [("Host", rng.choice(hosts)), cookie]),
        "two hosts": lambda: text("GET", folder, [host, ("Host", rng.choice(hosts)), cookie]),
        "no host": lambda: text("GET", folder, [cookie]),
        "host of the token": lambda: text("GET", f"/{admitted.token}", [("Host", rng.choice(hosts))]),
        "origin": lambda: text(
            "POST", folder + "picture", [host, cookie, small, ("Origin", rng.choice(origins))], b"GIF8"
        ),
        "origin of a page": lambda: text("GET", folder + rng.choice(pages), [host, cookie, ("Origin", "http://x")]),
        "no origin": lambda: text("POST", folder + "gallery", [host, cookie, small], b"aaaa"),
        "site": lambda: text(
            "GET", folder, [host, cookie, ("Sec-Fetch-Site", rng.choice(["cross-site", "same-site", "x"]))]
        ),
        "no cookie": lambda: text("GET", folder + rng.choice(pages), [host]),
        "cookie": lambda: text("GET", folder, [host, ("Cookie", f"guda-{admitted.port}={noise(43)}")]),
        "two cookies": lambda: text("GET", folder, [host, cookie, cookie]),
        "odd cookie": lambda: text("GET", folder, [host, ("Cookie", rng.choice(["\x01", "a=b; ;;=", "é=ü", ";" * 99]))]),
        "token": lambda: text("GET", f"/{noise(rng.choice([1, 42, 43, 44]))}", [host]),
        "token begun": lambda: text("GET", f"/{admitted.token[:rng.randrange(42)]}", [host]),
        "token posted": lambda: text("POST", f"/{admitted.token}", [host, origin, small], b"aaaa"),
        "token asked": lambda: text("GET", f"/?token={admitted.token}", [host]),
        "folder": lambda: text("GET", f"/{noise(12)}/{rng.choice(pages)}", [host, cookie]),
        "path": lambda: text("GET", rng.choice(["/", folder]) + rng.choice(names), [host, cookie]),
        "whole address": lambda: text("GET", f"http://evil.example{folder}", [host, cookie]),
        "method": lambda: text(
            rng.choice(["PUT", "DELETE", "OPTIONS", "TRACE", "HEAD", "PATCH", "CONNECT", "get"]), folder, [host, cookie]
        ),
        "post of a page": lambda: text("POST", folder, [host, cookie, origin, small], b"aaaa"),
        "get of a post": lambda: text("GET", folder + rng.choice(["picture", "gallery"]), [host, cookie]),
        "huge": lambda: text(
            "POST", folder + "picture", [host, cookie, origin, ("Content-Length", str(rng.randrange(1 << 27, 1 << 60)))]
        ),
        "length": lambda: text(
            "POST", folder + "picture", [host, cookie, origin, ("Content-Length", rng.choice(["-1", "1e3", "x", ""]))]
        ),
        "no length": lambda: text("POST", folder + "picture", [host, cookie, origin]),
        "chunked": lambda: text(
            "POST", folder + "picture", [host, cookie, origin, ("Transfer-Encoding", "chunked")], b"4\r\nGIF8\r\n" * 50
        ),
        "smuggled": lambda: text(
            "POST", folder + "picture", [host, cookie, origin, small, ("Transfer-Encoding", "chunked")],
            b"0\r\n\r\n" + text("GET", folder + "store", [host]),
        ),
        "two lengths": lambda: text(
            "POST", folder + "picture", [host, cookie, origin, small, ("Content-Length", "5")], b"aaaaa"
        ),
        "upgrade": lambda: text(
            "GET", folder + "store", [host, ("Connection", "Upgrade"), ("Upgrade", "websocket"),
                                      ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), ("Sec-WebSocket-Version", "13")],
        ),
        "digest": lambda: text(
            "POST", folder + "gallery", [host, cookie, origin, ("Content-Length", "64")],
            rng.choice(["../" * 21 + "x", "g" * 64, "A" * 64]).encode(),
        ),
        "long": lambda: text("GET", folder, [host, cookie, ("X", "x" * (1 << 17))]),
        "long path": lambda: text("GET", "/" + "x" * (1 << 17), [host, cookie]),
        "bytes": lambda: rng.randbytes(rng.randrange(1, 300)) + b"\r\n\r\n",
        "old": lambda: b"GET / HTTP/0.9\r\n\r\n",
        "folded": lambda: b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    }  # fmt: skip
    for number in range(REQUESTS):
        name = list(kinds)[number % len(kinds)]
        yield name, kinds[name]()


def answer(port: int, request: bytes) -> bytes:
    """All that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        parts = []
        with contextlib.suppress(OSError):  # it need not read on once it has refused
            link.sendall(request)
            link.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):  # likewise
            while part := link.recv(1 << 16):
                parts.append(part)
    return b"".join(parts)


def test_none_of_a_thousand_is_served(viewed: Viewed, admitted: Admitted) -> None:
    kinds = set()
    for name, request in hostile(admitted, random.Random(7)):
        kinds.add(name)
        found = answer(viewed.port, request)
        statuses = re.findall(rb"HTTP/1\.1 (\d+) ", found)
        assert all(status[:1] == b"4" for status in statuses), (name, request[:300], found[:300])
        assert statuses or name in ("bytes", "long", "long path", "huge", "old"), (name, request[:300])
        assert len(found) < 1000, name
        for secret in (
            b"amber",
            b"tiny",
            admitted.cookie.encode(),
            b'class="card"',
            str(viewed.folder).encode(),
        ):
            assert secret not in found, name
    assert len(kinds) > 30
    began = time.monotonic()
    status, page = admitted.get("")
    assert (status, b"Drop a picture" in page) == (200, True)
    assert time.monotonic() - began < 2


def test_who_is_slow_is_sent_away(
    viewed: Viewed, admitted: Admitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [socket.create_connection(("127.0.0.1", viewed.port)) for _ in range(40)]
    for link in slow:
        link.sendall(b"GET / HTTP/1.1\r\nHost: ")
    try:
        assert admitted.get("view.js")[0] == 200
        slow[0].settimeout(40)
        assert slow[0].recv(100) == b"", "it is still waited for"
    finally:
        for link in slow:
            link.close()


def test_what_every_answer_says(admitted: Admitted) -> None:
    for path in ("", "view.js", "report", "nothing"):
        link = HTTPConnection(admitted.host, timeout=120)
        link.request("GET", admitted.folder + path, headers={"Cookie": admitted.cookie})
        found = link.getresponse()
        found.read()
        link.close()
        policy = found.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert path == "report" or "unsafe" not in policy
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert found.headers["Referrer-Policy"] == "no-referrer"
        assert found.headers["Cache-Control"] == "no-store"
        assert found.headers["X-Frame-Options"] == "DENY"
        assert not [name for name in found.headers if name.lower().startswith("access-control")]


def test_only_this_machine_is_listened_to(viewed: Viewed) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [parts[1] for parts in listening if parts[1].endswith(f":{viewed.port:04X}") and parts[3] == "0A"]
    assert mine == [f"0100007F:{viewed.port:04X}"]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("..%2F..%2Fx%00.png", "x_.png"),
        ("C:\\x\\y.png", "y.png"),
        ("-rf *", "rf _"),
        (".bashrc", "bashrc"),
        ("%0a%1b[31m", "31m"),
        ("", NAMELESS),
        ("...", NAMELESS),
        ("%E2%82%AC.png", "png"),
        ("x" * 500 + ".png", "x" * (LONGEST - 4) + ".png"),
        ("[a]?.png", "a__.png"),
    ],
)
def test_names_are_only_names(said: str, name: str) -> None:
    assert file_name(said) == name


def test_prompts_are_one_line() -> None:
    assert plain_text("a%20cat%0Aon%1b a%E2%82%AC") == "a cat on a€"
    assert len(plain_text("x" * 10_000)) == 1000
