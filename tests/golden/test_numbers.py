"""Numbers that may move only when their operation's version does.

    GUDA_REGENERATE_GOLDEN=1 python -m pytest tests/golden

writes them anew, and refuses to where numbers moved and the version did not. Every operation starts
from weights that a formula gives, so that a change of one moves its own numbers alone; `end-to-end` chains
them. No dropout: its masks differ between builds of torch. Enough steps that the learning rate has warmed
up and fallen.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.attribution import unlikeness
from guda_cli.attribution.calibration import Calibration
from guda_cli.attribution.delta_elbo import delta_elbo
from guda_cli.diffusion import elbo, grid, sampling, strata, weighting
from guda_cli.families.pixels import UNetDenoiser
from guda_cli.sections import TrainSpec, UnlearnSpec
from guda_cli.training.loop import Hooks
from guda_cli.training.train import train
from guda_cli.unlearning import check
from guda_cli.unlearning.judgement import Losses, Sides, judge
from guda_cli.unlearning.operators.base import Problem
from guda_cli.unlearning.unlearn import unlearn
from guda_cli.workflow.keys.operations import VERSIONS
from tests.diffusion.tiny import make_schedule, make_unet

FILE = Path(__file__).with_name("numbers.json")
HOW = "GUDA_REGENERATE_GOLDEN=1 python -m pytest tests/golden"
REGENERATE = os.environ.get("GUDA_REGENERATE_GOLDEN", "") not in ("", "0")
RTOL, ATOL = 1e-3, 2e-5  # other processors round otherwise

SCHEDULE = make_schedule("squaredcos_cap_v2", 60)
TRAIN = TrainSpec(
    steps=6, batch_size=8, lr=1e-3, warmup_steps=2, lr_schedule="cosine", weight_decay=0.01, ema_decay=0.9,
    flip=True, seed=5,
)  # fmt: skip
UNLEARN = UnlearnSpec(
    operator="retrack", steps=12, batch_size=8, lr=1e-3, retain="denoise", neighbours=3, forget_weight=0.7,
    t_min=0.1, cap=4.0, seed=6,
)  # fmt: skip
DIGESTS = ["first query", "second query"]
Weights = dict[str, Tensor]


def images() -> Tensor:
    """16 images [1, 8, 8]: stripes whose width and phase change from image to image."""
    n, y, x = np.meshgrid(np.arange(16), np.arange(8), np.arange(8), indexing="ij")
    wave = np.sin((0.4 + 0.1 * n) * x + 0.7 * n) + np.cos(0.3 * n * y)
    return torch.from_numpy(np.rint(127.5 + 60 * wave).astype(np.uint8)).unsqueeze(1)


def formula_weights() -> Weights:
    """Weights of a tiny network from a formula, so that no random generator plays a part."""
    out = {}
    for k, (name, value) in enumerate(sorted(make_unet().state_dict().items())):
        wave = np.cos(0.37 * np.arange(value.numel()) ** 1.1 + k).reshape(value.shape)
        middle = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        out[name] = torch.from_numpy(middle + 0.15 * wave).float()
    return out


def network(weights: Weights) -> torch.nn.Module:
    unet = make_unet()
    unet.load_state_dict(weights)
    return unet


def summary(weights: Weights, start: Weights) -> list[float]:
    """Three numbers of how far the weights went: two lengths, and the way along a fixed direction."""
    moved = torch.cat([(weights[name] - start[name]).double().flatten() for name in sorted(start)])
    along = torch.cos(0.01 * torch.arange(len(moved), dtype=torch.float64))
    return [float(moved.norm()), float(moved.abs().sum()), float(moved @ along)]


def terms(weights: Weights, kind: str = "strata") -> np.ndarray:
    unet = network(weights).eval()
    queries = images()[[3, 12]].float() / 127.5 - 1
    g = grid.build(grid.spec(kind, 4, 2, 1), SCHEDULE.T)
    return elbo.image_terms(UNetDenoiser(unet, SCHEDULE), queries, DIGESTS, g, seed=2, batch_size=16)


def run_training(told: list[float]) -> Weights:
    return train(UNetDenoiser(make_unet(5), SCHEDULE), images(), TRAIN, hooks=Hooks(on_step=told.append))


def run_unlearning(start: Weights, told: list[float], spec: UnlearnSpec = UNLEARN) -> Weights:
    problem = Problem(images(), torch.arange(16) >= 12, SCHEDULE, spec)
    return unlearn(UNetDenoiser(network(start), SCHEDULE), problem, hooks=Hooks(on_step=told.append))


def training_numbers() -> dict[str, Any]:
    told: list[float] = []
    weights = run_training(told)
    return {"losses": told, "moved": summary(weights, make_unet(5).state_dict())}


def unlearning_numbers() -> dict[str, Any]:
    told: list[float] = []
    start = formula_weights()
    weights = run_unlearning(start, told)
    rows = check.evaluation_rows(torch.arange(16) >= 12, 24)
    before, after = (
        check.losses(UNetDenoiser(network(w).eval(), SCHEDULE), images(), rows) for w in (start, weights)
    )
    found = [Losses(Sides(values, before)) for values in (before, after)]
    judged = judge(*found).to_dict()
    return {
        "losses": told,
        "moved": summary(weights, start),
        "check": [judged["group_before"], judged["group_after"]],
    }


def operator_numbers() -> dict[str, Any]:
    """Two numbers of a run of each operator, and of each modifier of retrack; lengths of what moved."""
    start, out = formula_weights(), {}
    cases: dict[str, dict[str, Any]] = {
        "erasediff": {"operator": "erasediff", "erase_rate": 0.5},
        "siss": {"operator": "siss", "forget_weight": 1.0, "mixture": 0.5, "superfactor": 0.1},
        "neggrad": {"operator": "neggrad", "forget_weight": 0.1},
        "retrack, guard": {"guard": True, "guard_temperature": 1.0},
        "retrack, density ratio": {"density_ratio": True, "t_max": 0.9},
    }
    for name, changes in cases.items():
        told: list[float] = []
        weights = run_unlearning(start, told, dataclasses.replace(UNLEARN, steps=6, **changes))
        out[name] = [sum(told), *summary(weights, start)[:2]]
    return out | {"esd": esd_numbers()}


def esd_numbers() -> list[float]:
    """The same of esd, on a network with three classes and none."""
    start = formula_weights()
    size = make_unet(num_class_embeds=4).state_dict()["class_embedding.weight"]
    wave = np.sin(0.61 * np.arange(size.numel()) ** 1.2).reshape(size.shape)
    start["class_embedding.weight"] = torch.from_numpy(0.5 * wave).float()
    nets = [make_unet(num_class_embeds=4) for _ in range(2)]
    for net in nets:
        net.load_state_dict(start)
    spec = dataclasses.replace(UNLEARN, operator="esd", steps=6, forget_weight=1.0, guidance=1.0)
    labels = torch.arange(16) // 6
    problem = Problem(images(), labels == 2, SCHEDULE, spec, labels, torch.tensor(3), 0.2)
    told: list[float] = []
    teacher = UNetDenoiser(nets[1].eval(), SCHEDULE)
    weights = unlearn(
        UNetDenoiser(nets[0], SCHEDULE), problem, teacher=teacher, hooks=Hooks(on_step=told.append)
    )
    return [sum(told), *summary(weights, start)[:2]]


def table_numbers() -> dict[str, Any]:
    start = formula_weights()
    return {"strata": terms(start).ravel().tolist(), "stride": terms(start, "stride:20").ravel().tolist()}


def sample_numbers() -> dict[str, Any]:
    denoiser = UNetDenoiser(network(formula_weights()).eval(), SCHEDULE)
    out = {}
    for sampler in ("ddim", "ddpm"):
        drawn = sampling.sample(denoiser, (1, 8, 8), range(2), sampler=sampler, steps=5, seed=3)
        out[sampler] = drawn.flatten()[::9].tolist()
    return out


def score_numbers() -> dict[str, Any]:
    """Weightings and estimates from arrays that a formula gives."""
    g = grid.build(grid.spec("strata", 4, 2, 1), SCHEDULE.T)
    wave = np.cos(np.arange(3 * 2 * 2 * 4)).reshape(3, 2, 2, 4)
    full, *without = 2 + wave[0], *(2.5 + wave[1:])
    out: dict[str, Any] = {}
    for name in ("elbo", "uniform", "min-snr:5", "band:10-30"):
        v = weighting.parse(name).multiplier(SCHEDULE)
        found = [delta_elbo(full, each, g, v) for each in without]
        out[name] = [float(x) for each in found for x in (*each.value, *each.se)]
    return out


def verdict_numbers() -> dict[str, Any]:
    """Strata by sizes, intervals and verdicts from arrays that a formula gives."""
    size = np.concatenate([[0.0], np.arange(1, 61) ** -0.5])
    edges, repeats = strata.edges(SCHEDULE, [(0.5, size), (0.2, SCHEDULE.elbo_weight)], 20)
    g = grid.build(grid.spec("strata", 20, 3, 1, (edges, repeats)), SCHEDULE.T)
    wave = np.cos(np.arange(2 * 60).reshape(2, 3, 20) ** 1.3)
    found = delta_elbo(wave, 0.5 * wave + 0.1, g, weighting.parse("uniform").multiplier(SCHEDULE))
    members = np.eye(3, dtype=bool)[np.arange(60) % 3]
    scores = np.sin(np.arange(180).reshape(60, 3) ** 1.2) + 2.0 * members
    features = np.cos(np.arange(180).reshape(60, 3) ** 1.1) + members
    space, asked = unlikeness.fit(features, members), np.array([[0.2, 0.9, 1.6]])
    known = Calibration(scores, members, np.zeros(60, dtype=bool))
    return {
        "layout": [edges, repeats],
        "intervals": [found.value.tolist(), found.se.tolist(), found.df.tolist(), found.reach.tolist()],
        "verdicts": [known.p_values(asked).tolist(), known.z(asked).tolist(), known.threshold(0.05)],
        "unlike": [space.distances(asked).tolist(), unlikeness.left_out(features, members).tolist()],
    }


def chain_numbers() -> dict[str, Any]:
    """Train, unlearn, score two queries."""
    full = run_training([])
    without = run_unlearning(full, [])
    g = grid.build(grid.spec("strata", 4, 2, 1), SCHEDULE.T)
    tables = terms(full), terms(without)
    found = delta_elbo(*tables, g, weighting.parse("min-snr:5").multiplier(SCHEDULE))
    return {
        "terms": [t.ravel().tolist() for t in tables],
        "score": found.value.tolist(),
        "error": found.se.tolist(),
    }


Compute = Callable[[], dict[str, Any]]
SECTIONS: dict[str, tuple[tuple[str, ...], Compute]] = {
    "train": (("train",), training_numbers),
    "unlearn": (("unlearn",), unlearning_numbers),
    "operators": (("unlearn",), operator_numbers),
    "elbo-table": (("elbo-table",), table_numbers),
    "sample": (("sample",), sample_numbers),
    "score": (("score",), score_numbers),
    "verdict": (("calibration", "term-sizes", "familiar", "distances"), verdict_numbers),
    "end-to-end": (("train", "unlearn", "elbo-table", "score"), chain_numbers),
}


def differences(found: Any, stored: Any, path: str) -> list[str]:
    """Where two nests of numbers differ by more than rounding."""
    if isinstance(found, dict) and isinstance(stored, dict):
        if found.keys() != stored.keys():
            return [f"{path}: {sorted(found)} instead of {sorted(stored)}"]
        return [d for key in found for d in differences(found[key], stored[key], f"{path}.{key}")]
    if isinstance(found, list) and isinstance(stored, list):
        if len(found) != len(stored):
            return [f"{path}: {len(found)} numbers instead of {len(stored)}"]
        pairs = enumerate(zip(found, stored, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{path}[{i}]")]
    close = np.isclose(found, stored, rtol=RTOL, atol=ATOL)
    return [] if close else [f"{path}: {found!r} instead of {stored!r}"]


def stored() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


@pytest.mark.parametrize("section", SECTIONS)
def test_numbers_have_not_moved(section: str) -> None:
    operations, compute = SECTIONS[section]
    versions = {operation: VERSIONS[operation] for operation in operations}
    found = compute()
    known = stored().get(section)
    moved = differences(found, known["numbers"], section) if known else ["nothing is stored"]
    raised = not known or any(versions[o] > known["versions"].get(o, 0) for o in operations)
    if REGENERATE and moved and raised:
        text = json.dumps(
            {**stored(), section: {"versions": versions, "numbers": found}}, indent=1, sort_keys=True
        )
        FILE.write_text(text + "\n", encoding="utf-8")
        return
    if REGENERATE and not moved and known:
        kept = {**known, "versions": versions}
        FILE.write_text(
            json.dumps({**stored(), section: kept}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        return
    names = " or ".join(f'VERSIONS["{o}"]' for o in operations)
    where = "in guda_cli/workflow/actions.py"
    assert not moved, f"numbers moved: raise {names} {where} and regenerate with {HOW}\n" + "\n".join(
        moved[:9]
    )
    assert known["versions"] == versions, f"{names} changed {where}: regenerate with {HOW}"
