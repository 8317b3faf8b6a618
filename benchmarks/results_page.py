"""The page of `results.py`: its tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

METRICS = ("top1", "mrr", "ndcg@3", "ndcg@5", "spearman", "kendall", "rbo", "wpra")
METRICS += ("corr", "corr:true", "lds")  # shown where some method has them


def markdown(recipe: str, found: dict[str, Any], script: str, commands: Sequence[str]) -> str:
    """The page of one recipe, from what `Bench.run` found."""
    report = found["agreement"]
    parts = [
        f"# {recipe}: every method against retraining",
        f"Made by `{script}` on {report['created'][:10]}. {len(report['groups'])} groups judged, "
        f"{report['queries']} images drawn from the full model, oracle seeds "
        f"{', '.join(map(str, report['seeds']))}, {report['grid']}. Left out, as settings were tuned on "
        f"them: {', '.join(report['left_out']) or 'none'}. ± is half the bootstrap 95 % interval over the "
        "images; corr is the correlation with the mean oracle, corr:true the same corrected for its "
        "noise (it can pass 1); NDCG has gain 2^rel - 1. Costs are forward-equivalents (a backward counts "
        "2), for all the groups judged.",
    ]
    for table in report["tables"]:
        notes = "\n".join(f"- {note}" for note in table["notes"])
        parts += [f"## {table['weighting']}", _reliability(table), agreement_table(table), notes]
    for table in found["paper"]["tables"]:
        notes = "\n".join(f"- {note}" for note in table["notes"])
        head = f"## {table['weighting']} on the paper's grid ({found['paper']['grid']})"
        parts += [head, _reliability(table), agreement_table(table), notes]
    parts += ["## Cost", cost_table(report["tables"][0])]
    if report.get("bands"):
        parts += ["## Where the oracle knows itself", bands_table(report["bands"])]
    if report.get("steps"):
        parts += ["## Agreement against unlearning steps", steps_table(report["steps"])]
    parts += ["## Less each model's mean (`--center`)"]
    for table in found["centred"]["tables"][:1]:
        parts += [f"{table['weighting']}:", agreement_table(table)]
    if found["tuned"]:
        parts += ["## Tuning", *[tuning_table(name, tuned) for name, tuned in found["tuned"].items()]]
    parts += ["## Commands", "```sh\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _reliability(table: dict[str, Any]) -> str:
    if table.get("reliability") is None:
        return "One oracle seed: no ceiling."
    mean = table["reliability_mean"]
    trust = "" if mean >= 0.7 else " Under 0.7: no ranking of methods can be trusted."
    return f"Reliability of one seed {table['reliability']:.2f}, of the mean oracle {mean:.2f}.{trust}"


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def agreement_table(table: dict[str, Any]) -> str:
    """Methods by top-1, then random and the ceiling."""
    shown = [name for name in METRICS if any(name in row["metrics"] for row in table["rows"])]
    order = {"method": 0, "imported": 0, "random": 1, "ceiling": 2}
    rows = sorted(table["rows"], key=lambda r: (order[r["kind"]], -_top(r)))
    return grid(
        ["method", *shown],
        [[row["method"], *(_interval(row["metrics"].get(name)) for name in shown)] for row in rows],
    )


def _top(row: dict[str, Any]) -> float:
    return float(row["metrics"]["top1"]["value"]) if "top1" in row["metrics"] else 0.0


def _interval(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    half = (value["high"] - value["low"]) / 2
    return f"{value['value']:.2f} ± {half:.2f}"


def cost_table(table: dict[str, Any]) -> str:
    """Preparation and query costs."""
    rows = []
    for row in table["rows"]:
        keys = ("prepare_forwards", "prepare_seconds", "query_forwards", "query_seconds", "speedup_forwards")
        rows.append([row["method"], *(_number(row.get(key)) for key in keys)])
    return grid(
        ["method", "preparation", "seconds", "a query", "seconds", "LOGO's preparation / this one's"], rows
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bands_table(bands: list[dict[str, Any]]) -> str:
    """The ceiling by band of timesteps."""
    return grid(
        ["t", "top-1", "NDCG@3", "reliability"],
        [
            [
                f"{band['t_low']}-{band['t_high']}",
                _interval(band["metrics"]["top1"]),
                _interval(band["metrics"]["ndcg@3"]),
                f"{band['reliability']:.2f}",
            ]
            for band in bands
        ],
    )


def steps_table(points: list[dict[str, Any]]) -> str:
    """Agreement by number of unlearning steps under the first weighting."""
    first = points[0]["weighting"]
    rows = [
        [
            p["operator"],
            str(p["steps"]),
            *(_interval(p["metrics"][m]) for m in ("top1", "ndcg@3", "spearman")),
        ]
        for p in points
        if p["weighting"] == first
    ]
    return f"{first}:\n\n" + grid(["operator", "steps", "top-1", "NDCG@3", "Spearman"], rows)


def tuning_table(operator: str, found: dict[str, Any]) -> str:
    """The trials of one operator."""
    trials, rows = found["trials"], []
    for i, trial in enumerate(trials):
        verdict = trial["verdict"]
        settings = {k: v for k, v in trial["settings"].items() if k not in ("operator", "seed")}
        words = ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)
        mark = "chosen" if i == found["chosen"] else ""
        rows.append(
            [words, f"{verdict['tuned_on']:.3f}", f"{verdict['shown']:.3f}", _number(trial["forwards"]), mark]
        )
    head = f"{operator}, on {', '.join(found['groups'])} ({found['weighting']}):"
    return f"{head}\n\n" + grid(["settings", "tuned half", "other half", "forwards, all groups", ""], rows)
