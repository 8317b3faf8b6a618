"""Weights as a file: the bytes of safetensors, made and read without a second copy in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from guda_cli.diffusion.weight_file import _KINDS, Changes, PackedWeights, mapped
from guda_cli.errors import DataError
from guda_cli.store import Store


def of_every_kind() -> dict[str, Tensor]:
    """Awkward names, every dtype, a number alone, nothing at all, and what does not lie in one piece."""
    kinds = {f'é"{"b" if i % 2 else "a"}\n{i}': torch.ones(i % 3 + 1).to(k) for i, k in enumerate(_KINDS)}
    g = torch.Generator().manual_seed(0)
    return {
        **kinds,
        "none": torch.empty(0, 3),
        "one": torch.tensor(3.0),
        "turned": torch.randn(30, 50, generator=g).T,
        "last": torch.randn(50, 30, generator=g),
    }


def test_the_bytes_are_those_of_safetensors() -> None:
    weights = of_every_kind()
    wanted = save({name: value.contiguous() for name, value in weights.items()})
    assert bytes(PackedWeights(weights, "it")) == wanted
    assert bytes(PackedWeights(dict(reversed(weights.items())), "it")) == wanted


def test_single_precision() -> None:
    half = {"a": torch.randn(4, 5).half(), "b": torch.randn(3).bfloat16(), "c": torch.arange(4)}
    back = load(bytes(PackedWeights(half, "it", single=True)))
    assert {name: value.dtype for name, value in back.items()} == {
        "a": torch.float32, "b": torch.float32, "c": torch.int64
    }  # fmt: skip
    assert all(torch.equal(back[name], value.to(back[name].dtype)) for name, value in half.items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_as_it_is_stored(bad: float, tmp_path: Path) -> None:
    weights = {"a": torch.zeros(3), "b": torch.ones(400_000), "c": torch.zeros(3)}
    weights["b"][17] = bad
    store = Store.open(tmp_path / "s")
    with pytest.raises(DataError, match="the model has NaN or infinite weights") as caught:
        store.put_pieces(PackedWeights(weights, "the model").pieces())
    assert "'b'" in caught.value.why
    assert store.usage()["blobs"]["count"] == store.usage()["tmp"]["count"] == 0


def test_a_mapped_file_is_not_copied(tmp_path: Path) -> None:
    weights = of_every_kind()
    path = tmp_path / "w"
    path.write_bytes(bytes(PackedWeights(weights, "it")))
    found = mapped(path)
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    [(low, high)] = [(int(a, 16), int(b, 16)) for a, b in (span[0].split("-") for span in spans)]
    assert all(low <= value.data_ptr() < high for value in found.values() if value.numel())


def test_memory_of_a_mapped_tensor_can_be_given_back(tmp_path: Path) -> None:
    value = torch.arange(2**20, dtype=torch.float32)
    path = tmp_path / "w"
    path.write_bytes(bytes(PackedWeights({"a": torch.ones(3), "b": value, "c": torch.ones(3)}, "it")))
    found = mapped(path)

    def resident() -> int:
        """Bytes of the file that are in this process's memory."""
        lines = Path("/proc/self/smaps").read_text().splitlines()
        start = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
        [size] = [line for line in lines[start : start + 6] if line.startswith("Rss:")]
        return int(size.split()[1]) << 10

    assert torch.equal(found["b"], value)
    assert resident() >= value.nbytes
    found.release("b")
    assert resident() < value.nbytes // 8
    assert torch.equal(found["b"], value)
    assert torch.equal(found["a"], torch.ones(3))
    assert torch.equal(found["c"], torch.ones(3))
    found.release("unknown")


def test_storing_takes_no_memory_of_the_size_of_the_weights(tmp_path: Path) -> None:
    weights = {str(i): torch.full((2**20,), float(i)) for i in range(10)}  # of 4 MiB each
    store = Store.open(tmp_path / "s")
    tracemalloc.start()
    try:
        digest = store.put_pieces(PackedWeights(weights, "it").pieces())
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    found = store.opened(digest, mapped)
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_changes_are_made_when_they_are_asked_for() -> None:
    made: list[str] = []

    def make(name: str) -> Tensor:
        made.append(name)
        return torch.ones(2)

    changes = Changes({"a": lambda: make("a"), "b": lambda: make("b")})
    both = {"b": torch.zeros(2), "c": torch.zeros(2)} | changes
    assert set(both) == {"a", "b", "c"}
    assert len(changes) == 2
    assert not made
    assert [float(both[name].sum()) for name in "abc"] == [2.0, 2.0, 0.0]
    assert made == ["a", "b"]
