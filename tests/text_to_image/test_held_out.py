"""Latents and prompts of images held out of training, and distances of models that read prompts."""

from __future__ import annotations

from pathlib import Path

from tests.text_to_image.fixtures import cli, one_thread, studio
from tests.workflow.fixtures import Cli, record

__all__ = ["cli", "one_thread", "studio"]


def test_checks_encode_held_out_images_as_training_images_were(studio: Path, cli: Cli) -> None:
    cli("train", "studio.yaml", "--set", "data.held_out=0.5", "--set", "latent.posterior=sample")
    cli("unlearn", "--group", "oil", "--no-null")
    found = record("unlearn", "oil").provenance["check"]
    assert found["held_out"]["group_before"] > 0
    assert 0 <= found["membership"]["after"] <= 1


def test_distances_are_over_prompts_without_guidance(studio: Path, cli: Cli) -> None:
    [model] = cli("check", "--group", "oil", "-n", "3", "--json").document["models"]
    assert model["distances"]["retrained"]["se"] > 0
    drawn = record("sample").params
    assert drawn["guidance"] == 1.0
    assert len(drawn["prompts"]) == 3
