"""How often unlearning sees the group, and what is said where it never does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from guda_cli.sections import UnlearnSpec
from guda_cli.training.stream import Stream
from guda_cli.unlearning.drawn import times_drawn
from tests.workflow.fixtures import GROUPS, Cli, cli, draw, one_thread, project, template

__all__ = ["cli", "one_thread", "project", "template"]


def test_it_counts_what_the_stream_shows() -> None:
    forget = torch.zeros(50, dtype=torch.bool)
    forget[[3, 7, 20]] = True
    spec = UnlearnSpec(steps=25, batch_size=8)  # four epochs
    assert times_drawn(forget, spec) == 4 * 3
    short = dataclasses.replace(spec, steps=2)
    stream = Stream(50, 8, 100, (1, 8, 8), spec.seed)
    shown = torch.cat([stream.indices(0), stream.indices(1)])
    assert times_drawn(forget, short) == int(torch.isin(shown, torch.tensor([3, 7, 20])).sum())


def test_a_share_of_every_batch_is_the_groups() -> None:
    forget = torch.zeros(50, dtype=torch.bool)
    forget[3] = True
    assert times_drawn(forget, UnlearnSpec(steps=7, batch_size=8, forget_share=0.5)) == 28


def test_a_group_that_is_never_drawn_is_named(cli: Cli, project: Path, documents) -> None:
    """One image among 49, in one step of four: the models of such groups would be one and the same."""
    draw(Path("more"), GROUPS)
    draw(Path("more"), ("single",), images=1)
    sets = ("--set", "data.path=more", "--set", "train.steps=2")
    cli("train", *sets)
    options = ("--no-null", "--steps", 1, "--set", "unlearn.batch_size=4")
    [document] = documents(cli("unlearn", "--all", *options, "--json").stdout)
    drawn = {model["group"]: model["drawn"] for model in document["models"]}
    assert sum(drawn.values()) == 4
    unseen = [name for name, times in drawn.items() if not times]
    assert unseen
    for model in document["models"]:
        assert ("drawn 0 times in 1 step" in model["check"]["why"]) == (model["group"] in unseen)
    done = cli("unlearn", "--all", *options)
    assert f"showed an image of {', '.join(unseen)}" in done.stderr
    assert "drawn 0 times" in done.stdout
