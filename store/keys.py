"""Canonical JSON, digests and action keys: the names everything in a store goes by."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

_HEX = frozenset("0123456789abcdef")


def canonical_json(value: object) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8.

    Tuples count as arrays. Raises TypeError for what JSON cannot say (sets, bytes, keys that are not
    strings, ...) and ValueError for NaN, infinities, text that is not Unicode and what is nested too deep.
    `1` and `1.0` differ.
    """
    try:
        _check(value, "value")
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("a value is nested too deep") from None
    return text.encode("utf-8")


def _check(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}, which is not a string")
            _check(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value!r}, which JSON cannot hold")
    elif not (value is None or isinstance(value, str | int)):
        raise TypeError(f"{where} is of type {type(value).__name__}, which is not a JSON type")


def action_key(operation: str, version: int, params: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The key of an action: SHA-256 of the canonical JSON of all that decides its outputs."""
    if not isinstance(operation, str) or isinstance(version, bool) or not isinstance(version, int):
        raise TypeError("an operation is named by a string and versioned by an integer")
    for name, digest in inputs.items():
        if not isinstance(digest, str):
            raise TypeError(f"input {name!r} is not given by a digest")
    body = {"operation": operation, "version": version, "params": dict(params), "inputs": dict(inputs)}
    return sha256_hex(canonical_json(body))


def sha256_hex(data: bytes) -> str:
    """SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def is_digest(text: object) -> bool:
    """Whether `text` is 64 lower-case hexadecimal digits."""
    return isinstance(text, str) and len(text) == 64 and set(text) <= _HEX


def check_digest(text: str, kind: str = "digest") -> str:
    """`text` itself, or ValueError when it is no SHA-256 (so that no name can leave the store's folder)."""
    if not is_digest(text):
        raise ValueError(f"not a {kind} (64 lower-case hexadecimal digits): {text!r}")
    return text
