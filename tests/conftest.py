"""Fixtures for every test: a home of its own, the real command, and the JSON schemas of its output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before torch is loaded. Tiny networks gain nothing from threads, which spin where workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests are about the CPU on any machine: what they hold of bits and memory is promised there. Those marked
# gpu, in tests/gpu, give their processes the devices back. (Workers of pytest-xdist inherit both.)
os.environ.setdefault("GUDA_TEST_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Commands make their models themselves: two tests share the cores already, and how long a model takes varies.
os.environ["GUDA_JOBS"] = "1"
# Nothing may depend on how busy the machine is.
settings.register_profile("guda", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("guda")

SCHEMAS = Path(__file__).parent.parent / "docs" / "schemas"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's home, store, proxies of the network, or terminal settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    for name in ("GUDA_STORE", "GUDA_DEBUG", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "_GUDA_COMPLETE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def no_waiting_for_disks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here outlives a loss of power; the tests of the store itself still see each fsync."""
    if request.path.parent.name != "store":
        monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Commands run in this process flush denormal numbers; the next test's arithmetic is whole again."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def guda(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command in `tmp_path`: `guda("store", "ls", code=0)`; no traceback may show."""

    def run(
        *args: str,
        code: int | None = None,
        cwd: Path = tmp_path,
        env: dict[str, str] | None = None,
        stdin: str = "",
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "guda_cli", *args],
            cwd=cwd, env={**os.environ, **(env or {})}, input=stdin,
            capture_output=True, text=True, encoding="utf-8", timeout=timeout, check=False,
        )  # fmt: skip
        if "--debug" not in args and "GUDA_DEBUG" not in (env or {}):
            assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def documents() -> Callable[[str], list[dict[str, Any]]]:
    """The JSON documents of a command's stdout, each checked against the schema it names."""

    def parse(stdout: str) -> list[dict[str, Any]]:
        found = [json.loads(line, parse_constant=_no_constants) for line in stdout.splitlines()]
        assert found, "no JSON on stdout"
        known = [json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")]
        schemas = {schema["properties"]["schema"]["const"]: schema for schema in known}
        for document in found:
            schema = schemas[document["schema"]]
            problems = list(violations(document, schema, document["schema"]))
            assert not problems, problems
        return found

    return parse


def _no_constants(name: str) -> None:
    raise AssertionError(f"{name} in JSON output")


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
_KEYWORDS = {
    "$schema", "$id", "$defs", "$ref", "title", "description", "type", "const", "enum", "properties",
    "required", "additionalProperties", "items", "minimum", "maximum", "pattern",
}  # fmt: skip


def violations(
    value: Any, schema: dict[str, Any], path: str, root: dict[str, Any] | None = None
) -> Iterator[str]:
    """Where `value` breaks `schema` (the keywords of JSON Schema that ours use)."""
    root = root or schema
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    assert set(schema) <= _KEYWORDS, f"{path}: keywords the check does not know: {set(schema) - _KEYWORDS}"
    kinds = schema.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(_is(value, kind) for kind in kinds):
        yield f"{path}: {value!r} is not {kinds}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{path}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not one of {schema['enum']}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if _is(value, "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value!r} is out of range"
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            yield from violations(item, schema["items"], f"{path}[{i}]", root)
    if isinstance(value, dict):
        yield from _object_violations(value, schema, path, root)


def _object_violations(
    value: dict[str, Any], schema: dict[str, Any], path: str, root: dict[str, Any]
) -> Iterator[str]:
    known = schema.get("properties", {})
    for key in schema.get("required", []):
        if key not in value:
            yield f"{path}: {key} is missing"
    extra = schema.get("additionalProperties", True)
    for key, item in value.items():
        if key in known:
            yield from violations(item, known[key], f"{path}.{key}", root)
        elif extra is False:
            yield f"{path}: unexpected {key}"
        elif isinstance(extra, dict):
            yield from violations(item, extra, f"{path}.{key}", root)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])
