"""A small agreement report with known numbers."""

from __future__ import annotations

from typing import Any

from guda_cli.report.agreement.content import (
    CEILING,
    IMPORTED,
    METHOD,
    RANDOM,
    AgreementReport,
    AgreementRow,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)

HOSTILE = "<script>alert('x')</script>\" onload=\"x \\input{y}%$&#_{}~^\x1b[31m\u202e[red]"
EVERY = (
    *("top1", "mrr", "ndcg@3", "ndcg@5", "spearman", "kendall", "rbo", "wpra"),
    *("corr", "corr:true", "lds"),
    *("ndcg@3:linear", "ndcg@5:linear"),
)


def metrics(top: float, half: float = 0.05, **changes: Interval) -> dict[str, Interval]:
    """top-1 as given; every further metric is 0.01 higher than the one before."""
    values = {name: top + 0.01 * i for i, name in enumerate(EVERY)}
    return {name: Interval(v, v - half, v + half) for name, v in values.items()} | changes


def row(
    name: str, top: float, kind: str = METHOD, prepare: float | None = 2e6, **changes: Any
) -> AgreementRow:
    fields: dict[str, Any] = {
        "metrics": metrics(top),
        "prepare_forwards": prepare,
        "prepare_seconds": None if prepare is None else 600.0,
        "query_forwards": 800.0,
        "query_seconds": 1.5,
        "speedup_forwards": 4e7 / prepare if prepare else None,
        "speedup_seconds": 12.0,
        "settings": {"steps": 100},
    }
    return AgreementRow(name, kind, **{**fields, **changes})


def rows() -> tuple[AgreementRow, ...]:
    """Out of order on purpose; `das` overlaps `guda`, the others do not."""
    return (
        row("ceiling (LOGO, other seed)", 0.65, CEILING, 4e7),
        row("similarity", 0.30, prepare=0.0),
        row("random", 0.10, RANDOM, None),
        row("guda", 0.60),
        row(HOSTILE, 0.20, IMPORTED, None, note="cost not known"),
        row("das", 0.52, prepare=9e5),
    )


def table(weighting: str = "min-snr:5", **changes: Any) -> AgreementTable:
    fields: dict[str, Any] = {"reliability": 0.5, "reliability_mean": 0.75, "rows": rows()}
    return AgreementTable(weighting, "weighted squared error", **{**fields, **changes})


def report(**changes: Any) -> AgreementReport:
    fields: dict[str, Any] = {
        "title": "Agreement <title>",
        "recipe_name": "digits",
        "recipe_yaml": "name: digits\ntrain:\n    lr: 1e-3  # <i>\n",
        "oracle": "logo",
        "seeds": (2, 3, 4),
        "groups": tuple(f"digit {i}" for i in range(8)),
        "left_out": ("digit 8", "digit 9"),
        "queries": 256,
        "centred": True,
        "grid": "stratified",
        "rbo_max": 1 - 0.9**8,
        "created": "2026-01-02",
        "tables": (table(), table("elbo", reliability=0.2, reliability_mean=0.43)),
        "bands": tuple(
            BandPoint(lo, lo + 99, metrics(0.4 + lo / 1e3), r)
            for lo, r in ((1, 0.2), (101, None), (201, 0.6))
        ),
        "steps": tuple(
            StepPoint(operator, "min-snr:5", count, metrics(0.3 + count / 1e3))
            for operator in ("retrack", "finetune")
            for count in (5, 20, 100)
        ),
        "logo_forwards": 4e7,
        "logo_seconds": 7200.0,
        "warnings": ("<u>careful</u>",),
        "provenance": {"device": "cpu", "bootstrap": {"resamples": 2000}},
    }
    return AgreementReport(**{**fields, **changes})
