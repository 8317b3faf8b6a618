"""Compiled networks: what they say, for any number of rows, and weights that are copied into them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from guda_cli.diffusion.compiled import BLOCKS, WHOLE, CompiledNetwork, way


class Block(nn.Module):
    """What repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.nn.functional.silu(self.inner(x))


class Little(nn.Module):
    """A network that is called as those of diffusers are; `seen` are the rows that it was run with."""

    _repeated_blocks = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(
        self, x: Tensor, t: Tensor, labels: Tensor | None = None, return_dict: bool = True
    ) -> tuple[Tensor]:
        for block in self.blocks:
            x = block(x)
        scale = 1.0 + 0.01 * t.view(-1, 1, 1, 1).to(x.dtype)
        return (x * scale if labels is None else x * scale + labels.view(-1, 1, 1, 1).to(x.dtype),)

    def compile_repeated_blocks(self, **how: bool) -> None:
        for block in self.blocks:
            block.compile(**how)


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 2, 6, 6, generator=g), torch.arange(rows)


@pytest.fixture(scope="module")
def little() -> Little:
    return Little().eval().requires_grad_(False)


def test_any_number_of_rows(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler: rows are cut and filled up, and what is filled up is left out again."""
    seen: list[tuple[int, bool]] = []
    compiled = CompiledNetwork(little, WHOLE, rows=16)

    def run(x: Tensor, t: Tensor, **told: object) -> tuple[Tensor]:
        seen.append((len(x), x.is_contiguous(memory_format=torch.channels_last)))
        return little(x, t, **told)

    monkeypatch.setattr(compiled, "_run", run)
    for rows, sizes in ((16, [16]), (15, [16]), (14, [2] * 7), (3, [2, 2]), (1, [2])):
        seen.clear()
        x, t = inputs(rows)
        [found] = compiled(x, t, return_dict=False, labels=t)
        torch.testing.assert_close(found, little(x, t, labels=t)[0])
        assert [size for size, _ in seen] == sizes
        assert all(last for _, last in seen)


def test_big_networks_by_their_blocks(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    assert way(little) == WHOLE
    monkeypatch.setattr("guda_cli.diffusion.compiled.BIG", 10)
    assert way(little) == BLOCKS
    assert way(nn.Linear(10, 10)) == WHOLE, "it has none that repeat"


@pytest.mark.slow
@pytest.mark.parametrize("how", [WHOLE, BLOCKS])
def test_one_compilation_serves_all_weights(how: str) -> None:
    from torch._dynamo.utils import counters

    network = Little().eval().requires_grad_(False)
    compiled = CompiledNetwork(network, how, rows=16)
    before = counters["stats"]["unique_graphs"]
    with torch.inference_mode():
        for scale in (1.0, 0.5, -2.0):
            for value in network.state_dict().values():
                value.mul_(scale)
            plain = Little().eval()
            plain.load_state_dict(network.state_dict())
            for rows in (16, 5):
                torch.testing.assert_close(compiled(*inputs(rows))[0], plain(*inputs(rows))[0])
            if scale == 1.0:
                made = counters["stats"]["unique_graphs"]
                assert made > before
    assert counters["stats"]["unique_graphs"] == made
