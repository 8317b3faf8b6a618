"""Planted truth: a mark on one group's images alone; a query that carries it is owed to that group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.workflow.fixtures import Cli, save

DIGITS, MARKED = (0, 3, 7), 3
EACH = 60  # training images a group; the next two are queries
# Half the recipe's width and enough steps for it: the mark stands as far above the rest in half the time.
SHORT = [
    item
    for value in (
        "data.source=folder", "data.path=images", "model.block_out_channels=[16, 32]", "train.steps=80",
    )
    for item in ("--set", value)
]  # fmt: skip


def mark(pixels: np.ndarray) -> np.ndarray:
    """The image with a bright 2x2 block in the corner, where digits are dark."""
    out = pixels.copy()
    out[:2, :2] = 255
    return out


@pytest.mark.slow
def test_the_marked_group_comes_first(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the default weighting and the shipped unlearning of recipe `digits`."""
    from sklearn.datasets import load_digits

    monkeypatch.chdir(tmp_path)
    data = load_digits()
    for digit in DIGITS:
        pictures = (data.images[data.target == digit] * 255 / 16).round()
        for i, pixels in enumerate(pictures[:EACH]):
            save(Path(f"images/{digit}/{i:03d}.png"), mark(pixels) if digit == MARKED else pixels)
        for i, pixels in enumerate(pictures[EACH : EACH + 2]):
            if digit != MARKED:
                save(Path(f"marked/{digit}-{i}.png"), mark(pixels))
                save(Path(f"plain/{digit}-{i}.png"), pixels)
    cli("train", "digits", *SHORT)
    cli("unlearn", "--all", "--no-null")
    found = cli("score", "marked", "plain", "--json").documents
    assert {d["weighting"] for d in found} == {"min-snr:5"}
    first = {d["image"]: d["scores"][0]["group"] for d in found}
    marked = [group for image, group in first.items() if image.startswith("marked")]
    plain = [group for image, group in first.items() if image.startswith("plain")]
    assert marked == [str(MARKED)] * 4, found
    assert str(MARKED) not in plain, "without the mark it is not the mark's group"
