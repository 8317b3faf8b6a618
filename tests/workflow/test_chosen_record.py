"""Records by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guda_cli.errors import DataError
from guda_cli.store import Store, StoreError, action_key
from guda_cli.workflow.models.chosen_record import find
from tests.workflow.fixtures import Cli, here, record


def put(store: Store, operation: str, what: str, without: Any = None, seed: int | None = None) -> str:
    params: dict[str, Any] = {"without": without, "n": sum(1 for _ in store.records())}
    if seed is not None:
        params[operation] = {"seed": seed}
    key = action_key(operation, 1, params, {})
    outputs = {"weights": store.put_bytes(b"x")}
    store.publish(
        key, operation=operation, version=1, params=params, inputs={}, outputs=outputs,
        provenance={"what": what},
    )  # fmt: skip
    return key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "s")


def test_names(store: Store) -> None:
    full = put(store, "train", "full model", seed=0)
    gone = {"groups": ["Van Gogh"]}
    own = put(store, "unlearn", "unlearn Van Gogh", gone, 0)
    other = put(store, "unlearn", "unlearn Van Gogh, seed 1", gone, 1)
    two = put(store, "train", "model without Van Gogh, seed 2", gone, 2)
    pair = put(store, "unlearn", "unlearn a+b", {"groups": ["a", "b"]}, 0)
    random = put(store, "unlearn", "unlearn random-9-1", {"random": {"size": 9, "index": 0}}, 0)
    meant = {
        "full": full, "full model": full, "Full Model": full, full[:8]: full, full.upper()[:10]: full,
        "unlearn Van Gogh": own, "without Van Gogh": own, "without van gogh, seed 0": own,
        "unlearn Van Gogh, seed 1": other, "without Van Gogh seed 1": other,
        "model without Van Gogh": two, "model without Van Gogh, seed 2": two, "without Van Gogh, seed 2": two,
        "without a+b": pair, "unlearn random-9-1": random,
    }  # fmt: skip
    for text, key in meant.items():
        assert find(store, text, set).key == key, text


def test_several_of_one_name(store: Store) -> None:
    gone = {"groups": ["a"]}
    keys = [put(store, "train", f"model without a, seed {seed}", gone, seed) for seed in (2, 3)]
    with pytest.raises(DataError, match="names 2 records") as err:
        find(store, "without a", set)
    for key, seed in zip(keys, (2, 3), strict=True):
        assert f"{key[:12]} model without a, seed {seed}" in err.value.why
    assert err.value.fix.startswith("guda store show ")
    assert find(store, "without a", lambda: {keys[0]}).key == keys[0], "the current recipe's"
    put(store, "train", "full model", seed=0)
    put(store, "train", "full model", seed=1)
    with pytest.raises(DataError, match="names 2 records") as err:
        find(store, "full", set)
    assert "seed 1" in err.value.why


def test_what_there_is_not(store: Store) -> None:
    put(store, "train", "full model")
    with pytest.raises(DataError, match="did you mean 'full model'"):
        find(store, "ful modle", set)
    with pytest.raises(DataError, match="known: 'full model'"):
        find(store, "zzz", set)
    with pytest.raises(StoreError, match="no record of this store"):
        find(store, "0000000", set)
    with pytest.raises(DataError):
        find(store, "full", set, among=set())


def test_in_the_commands(cli: Cli, project: Path) -> None:
    """Among models of other settings the current recipe's is meant; its folder can be opened."""
    cli("unlearn", "--group", "amber", "--no-null", "--steps", "3")
    old, new = [r.key for r in here().records("unlearn") if r.params["without"] == {"groups": ["amber"]}]
    assert f"key: {old}" in cli("store", "show", "without amber").stdout
    full = record("train")
    assert f"key: {full.key}" in cli("store", "show", "full").stdout
    cli("store", "export", "without amber", "out")
    assert Path("out/unet/config.json").exists() or Path("out/model_index.json").exists()
    cli("store", "pin", "full")
    assert list(here().pins()) == [full.key]
    cli("store", "unpin", "full model")
    assert here().pins() == {}
    assert new[:12] in cli("store", "ls", "unlearn").stdout
    assert "dataset" in cli("store", "export", "dataset", "out2", code=2).stderr
