"""The published configurations of the models people fine-tune, on the meta device: nothing is allocated."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from guda_cli.families.known import FAMILIES
from tests.scripts import ROOT, load

sizes = load("family_sizes")
META = torch.device("meta")
PUBLISHED = {
    "sdxl": 2_567_463_684,
    "flux": 11_901_408_320,
    "qwen-image": 20_430_401_088,
    "sd3.5-medium": 2.24e9,
    "sd3.5-large": 8.06e9,
    "z-image": 6.15e9,
}
"""Parameters of the denoisers, as their authors and their files say; whole numbers are exact."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_true_configuration_has_the_published_number_of_parameters(name: str) -> None:
    found = sizes.parameters(sizes.on_meta(sizes.MODELS[name]))
    assert found == pytest.approx(PUBLISHED[name], rel=0 if isinstance(PUBLISHED[name], int) else 3e-3)


@pytest.mark.parametrize("name", ["sdxl", "flux", "qwen-image", "z-image"])
def test_a_network_of_given_weights_takes_no_memory_of_its_own(name: str) -> None:
    """What no weights fill (Qwen-Image's and Z-Image's tables of positions) is there; all else is given."""
    model = sizes.MODELS[name]
    family, config = FAMILIES[model.family], {**model.config, "beside": dict(model.beside)}
    weights = {key: torch.empty(shape, device=META) for key, shape in family.shapes(config).items()}
    shared = family.sharing(config, weights)
    assert all(value.is_meta for value in shared.state_dict().values())
    others = (value for module in shared.modules() for value in vars(module).values())
    assert not any(isinstance(one, torch.Tensor) and one.is_meta for one in (*shared.buffers(), *others))
    assert shared.beside == dict(model.beside)


@pytest.mark.parametrize("name", ["flux", "qwen-image"])
def test_factors_are_those_of_attention(name: str) -> None:
    """Each linear layer of attention, [o, i], has r (o + i) numbers."""
    model = sizes.MODELS[name]
    small, large = sizes.adapter(model, 4), sizes.adapter(model, 16)
    assert large.numbers == 4 * small.numbers
    layers = {"flux": 19 * 8 + 38 * 3, "qwen-image": 60 * 8}[name]
    assert small.numbers == layers * 4 * (3072 + 3072)
    assert small.changed == layers * 3072 * 3072


def test_the_docs_table_says_what_is_counted() -> None:
    text = (ROOT / "docs" / "text-to-image.md").read_text("utf-8")
    for name in ("sdxl", "flux", "qwen-image"):
        model = sizes.MODELS[name]
        [line] = [line for line in text.splitlines() if line.startswith(f"| {model.title} | ")]
        count = sizes.parameters(sizes.on_meta(model))
        small, large = (4 * sizes.adapter(model, rank).numbers / 1e6 for rank in (4, 16))
        assert f"| {count / 1e9:.2f} B | {sizes.pair(4 * count, 2 * count)} |" in line
        assert line.endswith(f"| {small:.0f} / {large:.0f} MB |")


def test_live_bytes_are_the_most_that_were_there_at_once() -> None:
    x = torch.empty(1000, device=META)
    with sizes.Live() as live:
        one = x * 2
        two = one + 1
        view = two.view(10, 100)
        del one
        three: Any = view * 3
        del two, view, three
        torch.empty(10, device=META)
    assert live.most == 8000
    assert live.now == 0


def test_with_checkpointing_a_block_more_costs_its_input() -> None:
    """Nothing else of a block is kept for the backward, and of a forward nothing at all."""
    model = sizes.MODELS["flux"]
    few, more = (
        dataclasses.replace(model, config={**model.config, "num_layers": 1, "num_single_layers": count})
        for count in (2, 4)
    )
    assert sizes.activations(few) == sizes.activations(more)
    stream = 2 * 3072 * (4096 + 512)  # bfloat16
    assert sizes.activations(more, rank=4) - sizes.activations(few, rank=4) == 2 * stream
