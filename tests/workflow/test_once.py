"""A command makes each model's key once and reads each model's configuration once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from guda_cli.store import Store
from guda_cli.workflow.keys import steps
from tests.workflow.fixtures import GROUPS, Cli, here

MADE = len(GROUPS)  # models that are scored, beside the full one
NULLS = 3


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], Counter[str]]:
    """Keys of models made, by the model's name, and objects read from the store, by digest."""
    keys: Counter[str] = Counter()
    reads: Counter[str] = Counter()

    def counting(name: str) -> None:
        real = getattr(steps, name)

        def call(*args: Any, **named: Any) -> Any:
            action = real(*args, **named)
            keys[action.key] += 1
            return action

        monkeypatch.setattr(steps, name, call)

    counting("train")
    counting("unlearn")
    read, parsed = Store.read_bytes, Store.parsed
    monkeypatch.setattr(
        Store, "read_bytes", lambda store, digest: (reads.update([digest]), read(store, digest))[1]
    )
    monkeypatch.setattr(
        Store,
        "parsed",
        lambda store, digest, parse: (reads.update([digest]), parsed(store, digest, parse))[1],
    )
    return keys, reads


def configs(store: Store) -> set[str]:
    return {r.outputs["config"] for r in store.records() if "config" in r.outputs}


@pytest.mark.parametrize("fresh", [True, False], ids=["with networks", "from the store"])
def test_scoring(cli: Cli, project: Path, counted: tuple[Counter[str], Counter[str]], fresh: bool) -> None:
    if fresh:
        cli("sample", "-n", "2", "--seed", "7", "--out", "fresh")
    keys, reads = counted
    keys.clear()
    reads.clear()
    cli("score", "fresh" if fresh else "q", "--json")
    assert len(keys) == 1 + MADE
    assert set(keys.values()) == {1}, keys
    assert {reads[digest] for digest in configs(here())} == {1}


def test_unlearning(cli: Cli, project: Path, counted: tuple[Counter[str], Counter[str]]) -> None:
    keys, reads = counted
    cli("unlearn", "--all", "--steps", "3", "--json")
    assert len(keys) == 1 + MADE + NULLS
    assert set(keys.values()) == {1}, keys
    assert {reads[digest] for digest in configs(here())} == {1}
