"""Damage for `fuzz.py`: bytes, text and values as no program wrote them, by a seeded generator."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

NUMBERS = [
    "0", "-1", "1", "2147483648", "-9223372036854775809", "18446744073709551616", "1e400", "-0.0", "nan",
    ".inf", "NaN", "-Infinity", "9" * 5000, "1e-320", "0x7f", "1_0", "٣", "1.5", "true", "null", "''", "007",
]  # fmt: skip
WORDS = [
    "", " ", ".", "..", "../..", "/", "/dev/null", "/dev/zero", "-", "--", "~", "*", "[", "{", "a" * 70000,
    "\x00", "\n", "\r", "\x1b[31m\x1b]0;x\x07", "\u202egnp.", "\ud800", "\udce9", "é", "e\u0301", "日本",
    "\u2028", "\ufeff", "%s%n", "${x}", "`id`", "$(id)", "'", '"', "\\", "no", "null", "2001-99-99",
    "C:\\x\\y", "con", "!!python/object:os.system x", "<script>alert(1)</script>", "a,b", "a|b", "a;b", "#",
    "NaN", "digits", "folder",
]  # fmt: skip
DEEP = 30_000  # brackets within each other


def value(rng: random.Random, depth: int = 3) -> Any:
    """Any value that JSON or YAML may hold."""
    kind = rng.randrange(9 if depth else 6)
    if kind < 2:
        return rng.choice([0, 1, -1, 2, 1 << 31, 1 << 63, -(1 << 64), 10**400, True, False])
    if kind == 2:
        return rng.choice([0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), -1.5])
    if kind < 5:
        return rng.choice(WORDS)
    if kind == 5:
        return None
    if kind < 8:
        return [value(rng, depth - 1) for _ in range(rng.choice([0, 1, 2, 3, 30]))]
    return {rng.choice(WORDS): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def entries(document: Any, rng: random.Random) -> Any:
    """A document with one to three of its entries changed, removed, renamed or nested."""
    for _ in range(rng.randint(1, 3)):
        places = list(_places(document))
        if not places:
            return value(rng)
        holder, key = rng.choice(places)
        how = rng.randrange(5)
        if how == 0 and isinstance(holder, dict):
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[rng.choice([*WORDS, "X" + str(key)])] = holder.pop(key)
        elif how == 2:
            holder[key] = [holder[key]]
        elif how == 3 and isinstance(holder[key], (int, float)):
            holder[key] = rng.choice(
                [holder[key] * 1000, -holder[key], holder[key] + 1, str(holder[key]), 0.5]
            )
        else:
            holder[key] = value(rng)
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    keys = (
        document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    )
    found = [(document, key) for key in list(keys)]
    return found + [place for holder, key in found for place in _places(holder[key])]


def as_json(document: Any) -> str:
    """JSON, NaN and lone surrogates and all, as careless programs write it."""
    return json.dumps(document)


def text(source: str, rng: random.Random) -> bytes:
    """Text with one to four damages, mostly one."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        source = rng.choice(_TEXT)(source, rng)
    if not rng.randrange(8):
        return source.encode(rng.choice(["utf-16", "utf-8-sig", "latin-1", "cp1252"]), "replace")
    return source.encode("utf-8", rng.choice(["surrogatepass", "replace"]))


def _at(source: str, rng: random.Random, put: str, drop: int = 0) -> str:
    at = rng.randint(0, len(source))
    return source[:at] + put + source[at + drop :]


def _number(source: str, rng: random.Random) -> str:
    found = list(re.finditer(r"-?\d+(\.\d+)?", source))
    if not found:
        return _at(source, rng, rng.choice(NUMBERS))
    one = rng.choice(found)
    return source[: one.start()] + rng.choice(NUMBERS) + source[one.end() :]


def _word(source: str, rng: random.Random) -> str:
    found = list(re.finditer(r"\w+", source))
    if not found:
        return _at(source, rng, rng.choice(WORDS))
    one = rng.choice(found)
    return source[: one.start()] + rng.choice(WORDS) + source[one.end() :]


def _line(source: str, rng: random.Random) -> str:
    lines = source.split("\n")
    at = rng.randrange(len(lines))
    how = rng.randrange(4)
    if how == 0:
        lines[at : at + 1] = [lines[at]] * rng.choice([2, 3, 1000])
    elif how == 1:
        del lines[at]
    elif how == 2:
        lines[at] = "  " * rng.randrange(4) + lines[at].strip()
    else:
        lines.insert(at, lines[rng.randrange(len(lines))])
    return "\n".join(lines)


def _deep(source: str, rng: random.Random) -> str:
    left, right = rng.choice(["[]", "{}", "()", '""', "- "])
    return _at(source, rng, left * rng.choice([3, 200, DEEP]) + right * rng.choice([0, 3, DEEP]))


def _aliases(source: str, rng: random.Random) -> str:
    made = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    made += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, rng.randint(2, 12))]
    return "\n".join(made) + "\n" + source


_TEXT: list[Callable[[str, random.Random], str]] = [
    _number, _number, _word, _word, _line, _deep, _aliases,
    lambda source, rng: _at(source, rng, rng.choice(WORDS)),
    lambda source, rng: _at(source, rng, "", rng.randint(1, 20)),
    lambda source, rng: source[: rng.randint(0, len(source))],
    lambda source, rng: _at(source, rng, rng.choice(",:;\"'[]{}&*!|>%@`#\t\n\r")),
    lambda source, rng: source.replace("\n", rng.choice(["\r\n", "\r", "\n\n", ""])),
]  # fmt: skip


def data(source: bytes, rng: random.Random, others: tuple[bytes, ...] = ()) -> bytes:
    """Bytes with one to six damages, mostly few."""
    found = bytearray(source)
    for _ in range(rng.choice([1, 1, 2, 3, 6])):
        size = len(found)
        at = rng.randint(0, max(size - 1, 0))
        near = rng.randint(0, min(size, 200))  # most fields stand at the beginning
        where = rng.choice([at, near])
        how = rng.randrange(9)
        if how == 0 and size:
            found[where % size] ^= 1 << rng.randrange(8)
        elif how == 1:
            found[where : where + 4] = struct.pack(rng.choice(["<I", ">I"]), rng.choice(_FIELDS))
        elif how == 2:
            found[where : where + 2] = struct.pack(rng.choice(["<H", ">H"]), rng.choice(_FIELDS) & 0xFFFF)
        elif how == 3:
            found[where : where + 8] = struct.pack(
                "<Q", rng.choice([0, 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
            )
        elif how == 4:
            del found[at:]
        elif how == 5:
            del found[where : where + rng.randint(1, 64)]
        elif how == 6:
            found[where:where] = rng.randbytes(rng.randint(1, 64))
        elif how == 7:
            found[where:where] = found[at : at + rng.randint(1, 4096)]
        else:
            other = rng.choice(others or (source,))
            found[at:] = other[rng.randint(0, len(other)) :]
    return bytes(found)


_FIELDS = [0, 1, 2, 255, 256, 30_000, 65_535, 1 << 20, 1 << 28, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
