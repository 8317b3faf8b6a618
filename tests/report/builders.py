"""Small reports with known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from guda_cli.report.answers.content import Check, CostRow, GroupScore, QueryResult, ReportModel, summarise

GROUPS = ("cat", "dog", "<b>&ship")
HELD_OUT = {"group_before": 0.06, "group_after": 0.08, "rest_before": 0.045, "rest_after": 0.046}
MEMBERSHIP = {"before": 0.72, "before_se": 0.04, "after": 0.66, "after_se": 0.05}
HOSTILE = "<script>alert('x')</script>\" onerror=\"x\x1b[31m\u202e\udcff[red].png"


def score(group: str, value: float, z: float | None = 2.5, out: bool | None = False) -> GroupScore:
    return GroupScore(group, value, 0.1, value - 0.2, value + 0.2, z, None if z is None else 0.01, out)


def query(name: str, values: dict[str, float], looks: str | None = "cat", **changes: Any) -> QueryResult:
    ranked = sorted(values.items(), key=lambda item: -item[1])
    fields: dict[str, Any] = {
        "digest": "ab" * 32,
        "pixels": np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8),
        "scores": tuple(score(group, value) for group, value in ranked),
        "answer": (),
    }
    return QueryResult(name=name, looks_like=looks, **{**fields, **changes})


def report(queries: tuple[QueryResult, ...] | None = None, **changes: Any) -> ReportModel:
    if queries is None:
        queries = (
            query("a.png", dict(zip(GROUPS, (1.0, 0.5, -0.25), strict=True)), answer=("cat",)),
            query(HOSTILE, dict(zip(GROUPS, (3.0, -0.5, 0.75), strict=True)), pixels=None),
            query("c.png", dict(zip(GROUPS, (0.0, 2.0, 0.0), strict=True)), looks="dog"),
        )
    fields: dict[str, Any] = {
        "title": "A <title>",
        "recipe_name": "digits",
        "recipe_yaml": "name: digits\ntrain:\n    lr: 1e-3  # <i>\n",
        "method": "guda",
        "weighting": "min-snr:5",
        "weighting_unit": "weighted squared error",
        "grid": "stratified",
        "timesteps": 100,
        "draws": 2,
        "seed": 0,
        "created": "2026-01-02",
        "groups": GROUPS,
        "group_sizes": dict.fromkeys(GROUPS, 10),
        "checks": (
            Check("cat", 0.05, 0.07, 0.04, 0.041, True, ""),
            Check("dog", 0.05, 0.05, 0.04, 0.041, False, "loss did not rise"),
            Check("<b>&ship", 0.05, 0.07, 0.04, 0.04, False, "told apart", "doubtful", HELD_OUT, MEMBERSHIP),
        ),
        "null": {"random_groups": 5},
        "costs": (
            CostRow("train", "full model", 100.0, 1000.0, "cached", "2026-01-01"),
            CostRow("score", "3 images", 2.0, 600.0, "run", "2026-01-02"),
            CostRow("score", "map", None, None, "run", "2026-01-02"),
        ),
        "provenance": {"device": "cpu", "packages": {"torch": "2.9"}, "loss": float("nan")},
        "warnings": ("<u>careful</u>",),
        "sentence": "each group was unlearned from the full model",
    }
    summary = summarise(queries, changes.get("groups", GROUPS))._asdict()
    return ReportModel(queries=queries, **{**fields, **summary, **changes})
