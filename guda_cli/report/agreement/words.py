"""What an agreement report says in words and numbers; terminal, page and LaTeX use the same ones."""

from __future__ import annotations

from guda_cli.report.agreement import columns
from guda_cli.report.agreement.columns import View
from guda_cli.report.agreement.content import CEILING, AgreementReport, AgreementRow, AgreementTable
from guda_cli.report.agreement.figures import known, range_text, value_text, work_text
from guda_cli.report.agreement.standing import APART, BEHIND, BEST, CLOSE, of_kind, placed
from guda_cli.report.answers.words import FORWARD_NOTE, listed
from guda_cli.report.pieces.text import duration, finite, number, printable

LOW = 0.3  # a ceiling under it: the oracle hardly agrees with itself
TRUST = 0.7  # the least reliability of the mean oracle
_NO_TRUST = f"under {TRUST:g}: no ranking of methods can be trusted."
NDCG = "gain 2^rel − 1, rel = N − rank"
CEILING_TITLE = "Where the oracle knows itself"
STEPS_TITLE = "Agreement against unlearning steps"
READING = (
    "Every value is a mean over the queries with its bootstrap 95 % interval over the queries. The interval "
    "does not cover the randomness of training, neither the oracle's nor the method's.",
    "Agreement is with each seed of the oracle alone, averaged over the seeds. The ceiling is each seed "
    "against the others, averaged in the same way: how well another retraining agrees.",
    "Methods are ordered by top-1. One whose interval overlaps that of the best is not distinguishable from "
    "it here; as all methods see the same queries, a paired comparison could still tell some apart.",
    "NDCG is that of the CIFAR-10 tables of arXiv 2601.22651 (gain 2^rel − 1 with rel = N − rank). The "
    "linear gain of its UnlearnCanvas tables (rel = N − rank + 1) is in the CSV and JSON: ndcg@3:linear, "
    "ndcg@5:linear.",
    "corr is the correlation of all scores with those of the mean oracle, both without their row and column "
    "means. The mean oracle has noise of its own, which lowers it; true corr is corrected for that: divided "
    "by the root of the mean oracle's reliability, an estimate of the correlation with infinitely many "
    "seeds. It is not cut at 1 and can pass it by chance. In the ceiling's row both are what one more "
    "retraining would have.",
    "LDS, the linear datamodeling score, is of models trained without random halves of the groups: for each "
    "query, Spearman's correlation between the sum of a method's scores over the groups taken away and the "
    "loss of ELBO that was measured, over the halves. In the oracle's row its own scores are summed.",
    "RBO has p = 0.9 and is cut at the number of groups N: its maximum is 1 − 0.9^N. WPRA is over the "
    "oracle's first three groups.",
    f"{FORWARD_NOTE} Preparation is paid once for all groups, the rest for every query; speed-up is LOGO's "
    "preparation divided by the method's.",
)


def facts(report: AgreementReport) -> list[tuple[str, str]]:
    """What was judged and how, as names and values."""
    logo = ", ".join(
        text
        for text, value in (
            (f"{work_text(report.logo_forwards)} forward-equivalents", report.logo_forwards),
            (duration(report.logo_seconds), report.logo_seconds),
        )
        if finite(value) is not None
    )
    found = [
        ("Oracle", report.oracle),
        ("Oracle seeds", ", ".join(map(str, report.seeds))),
        ("Queries", f"{report.queries:,}"),
        ("Groups judged", f"{len(report.groups):,}"),
        ("Left out (tuned on)", ", ".join(report.left_out)),
        ("Timestep grid", report.grid),
        ("Scores", "centred: each model's mean over the queries removed" if report.centred else ""),
        ("NDCG", NDCG),
        ("Largest RBO", number(report.rbo_max, 2)),
        ("LOGO's preparation", logo),
        ("Recipe", report.recipe_name),
        ("Date", report.created),
    ]
    return [(name, printable(value)) for name, value in found if value]


def verdict(table: AgreementTable) -> str:
    """Who agrees best with the oracle, in one sentence."""
    rows = placed(table)
    best = next((p.row for p in rows if p.place == BEST), None)
    if best is None:
        return f"Under {printable(table.weighting)} no method has a top-1 agreement."
    top = best.metrics["top1"]
    ceiling = of_kind(table, CEILING)
    highest = known(ceiling.metrics.get("top1")) if ceiling else None
    beside = f"; ceiling {value_text(highest)}" if highest else ""
    close = sum(p.place == CLOSE for p in rows)
    tie = f", not distinguishable from {close} more" if close else ""
    return (
        f"Under {printable(table.weighting)} {printable(best.name)} agrees best with the oracle{tie}: "
        f"top-1 {value_text(top)} ({range_text(top)}{beside})."
    )


def reliability_line(report: AgreementReport, table: AgreementTable) -> str:
    """The oracle's reliability, and whether it is enough."""
    one, mean = finite(table.reliability), finite(table.reliability_mean)
    if one is None:
        return (
            "The oracle's reliability is not known: it has one seed. Train a second to know it "
            "(guda train --each-group --seeds A,B)."
        )
    text = f"Reliability of the oracle: {number(one, 2)} for one seed"
    if mean is None:
        return f"{text}."
    text += f", {number(mean, 2)} for the mean over {len(report.seeds)} seeds"
    return f"{text}; {_NO_TRUST}" if mean < TRUST else f"{text}."


def notes(report: AgreementReport, table: AgreementTable) -> list[str]:
    """What must be said beside the table: reliability, ties with the best, and where all is noise."""
    rows = placed(table)
    out = [reliability_line(report, table), *table.remarks]
    best = next((p.row for p in rows if p.place == BEST), None)
    close = [printable(p.row.name) for p in rows if p.place == CLOSE]
    if best and close:
        out.append(f"Not distinguishable from {printable(best.name)} in top-1: {listed(close)}.")
    elif best and sum(p.place == BEHIND for p in rows):
        out.append(f"No other method's top-1 interval reaches that of {printable(best.name)}.")
    weak = _weak_ceiling(report, table)
    if weak:
        out.append(
            f"Near the noise: the ceiling itself is low ({', '.join(weak)}). The oracle hardly agrees with "
            "itself there, and differences between methods say little."
        )
    blind = [printable(p.row.name) for p in rows if p.place != APART and _holds_zero(p.row)]
    if blind:
        out.append(
            f"Near the noise: Spearman's interval contains 0 for {listed(blind)}: nothing shows an order "
            "over all groups better than chance."
        )
    return out + [f"{printable(p.row.name)}: {printable(p.row.note)}" for p in rows if p.row.note]


def grave(line: str) -> bool:
    """Does this note question the table itself?"""
    return line.startswith("Near the noise") or line.endswith(_NO_TRUST)


def _weak_ceiling(report: AgreementReport, table: AgreementTable) -> list[str]:
    ceiling = of_kind(table, CEILING)
    if ceiling is None:
        return []
    values = [(metric, known(metric.of(ceiling.metrics))) for metric in columns.metrics(View.TABLE)]
    return [
        f"{metric.title} {value_text(found)}"
        for metric, found in values
        if found is not None and found.value < LOW * (metric.most(report) if metric.most else 1.0)
    ]


def _holds_zero(row: AgreementRow) -> bool:
    found = known(row.metrics.get("spearman"))
    return found is not None and found.low <= 0.0 <= found.high
