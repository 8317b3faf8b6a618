"""Scores as CSV, JSON and LaTeX. The documents are described in docs/table-formats.md."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import numpy as np

from guda_cli.report.answers.content import Gallery, GroupScore, QueryResult, ReportModel
from guda_cli.report.answers.words import sign
from guda_cli.report.pieces.text import MINUS

REPORT_SCHEMA = "guda.report/1"
SCORE_SCHEMA = "guda.score/1"
CSV_COLUMNS = (
    *("query", "digest", "looks_like", "rank", "group", "score", "se", "low", "high"),
    *("z", "p", "stands_out", "weighting", "method"),
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    MINUS: "$-$",
} | {c: f"\\{c}" for c in "&%$#_{}"}


def plain(value: Any) -> Any:
    """The value as strict JSON: numpy scalars and arrays unpacked, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (set, frozenset)):
        return [plain(v) for v in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (str, PurePath)):
        return str(value).encode("utf-8", "replace").decode("utf-8")
    raise TypeError(f"not a JSON value: {type(value).__name__}")


def to_csv(report: ReportModel) -> str:
    """One line a query and group, ranked; empty cells where there is no value."""
    lines = _csv_lines([list(CSV_COLUMNS)])
    for query in report.queries:
        lines += csv_lines(query, report.method, report.weighting)
    return "\n".join([*lines, ""])


def csv_lines(query: QueryResult, method: str, weighting: str, *, header: bool = False) -> list[str]:
    """One query's lines of the CSV, without line ends; ``header`` puts the column names first."""
    rows: list[list[object]] = [list(CSV_COLUMNS)] if header else []
    for rank, entry in enumerate(query.scores, 1):
        rows.append(_csv_row(query, rank, entry, weighting, method))
    return _csv_lines(rows)


def _csv_lines(rows: Iterable[Sequence[object]]) -> list[str]:
    lines = []
    for row in rows:
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(row)
        lines.append(out.getvalue().encode("utf-8", "replace").decode("utf-8"))
    return lines


def _csv_row(query: QueryResult, rank: int, entry: GroupScore, weighting: str, method: str) -> list[object]:
    numbers = [_cell(v) for v in (entry.score, entry.se, entry.low, entry.high, entry.z, entry.p)]
    stands_out = "" if entry.stands_out is None else str(entry.stands_out).lower()
    place = [query.name, query.digest, query.looks_like or "", rank, entry.group]
    return [*place, *numbers, stands_out, weighting, method]


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def query_document(query: QueryResult) -> dict[str, Any]:
    """One query's part of both JSON documents.

    ``class`` only where it was scored with one, ``instances`` only where the method scores single images.
    """
    ranked = [{"rank": rank, **asdict(entry)} for rank, entry in enumerate(query.scores, 1)]
    document: dict[str, Any] = {
        "image": query.name,
        "digest": query.digest,
        "looks_like": query.looks_like,
        "answer": query.answer,
        "scores": ranked,
        "elbo": {"nats": query.elbo_nats, "se": query.elbo_se, "bits_per_dim": query.bits_per_dim},
    }
    if query.condition is not None:
        document["class"] = query.condition
    if query.prompts:
        document["prompts"] = list(query.prompts)
    if query.instances:
        document["instances"] = [
            {"rank": rank, "image": one.name, "groups": one.groups, "score": one.score}
            for rank, one in enumerate(query.instances, 1)
        ]
    return document


def score_document(query: QueryResult, *, counterfactual: bool = True, **context: Any) -> dict[str, Any]:
    """One image's line of ``guda score --json``: ``method``, ``weighting`` and ``unit`` are required.

    ``counterfactual`` as in `ReportModel`: what ``sign`` says depends on it.
    """
    missing = [name for name in ("method", "weighting", "unit") if name not in context]
    body = query_document(query)
    taken = sorted({"schema", "sign", *body} & context.keys())
    if missing or taken:
        raise ValueError(f"score document: missing {missing}, reserved {taken}")
    document = plain({"schema": SCORE_SCHEMA, **body, "sign": sign(counterfactual), **context})
    assert isinstance(document, dict)
    return document


def to_json(report: ReportModel) -> dict[str, Any]:
    """The whole report but its pixels."""
    document = plain(
        {
            "schema": REPORT_SCHEMA,
            "title": report.title,
            "created": report.created,
            "recipe": {"name": report.recipe_name, "yaml": report.recipe_yaml},
            "method": report.method,
            "weighting": report.weighting,
            "unit": report.weighting_unit,
            "sign": sign(report.counterfactual),
            "grid": report.grid,
            "timesteps": report.timesteps,
            "draws": report.draws,
            "seed": report.seed,
            "groups": [{"name": g, "size": report.group_sizes.get(g)} for g in report.groups],
            "null": report.null,
            "queries": [query_document(query) for query in report.queries],
            "mean_scores": [{"group": g, "mean": mean, "se": se} for g, mean, se in report.mean_scores],
            "matrix": [
                {"looks_like": row, "queries": report.matrix_counts.get(row), "scores": dict(cells)}
                for row, cells in report.matrix.items()
            ],
            "checks": [asdict(check) for check in report.checks],
            "costs": [asdict(row) for row in report.costs],
            "warnings": report.warnings,
            "provenance": report.provenance,
            **(_gallery_documents(report.gallery) if report.gallery else {}),
        }
    )
    assert isinstance(document, dict)
    return document


def _gallery_documents(gallery: Gallery) -> dict[str, Any]:
    rows = [
        {
            "image": row.image,
            "digest": row.digest,
            "redrawn": row.redrawn,
            "same": row.same,
            "difference": row.difference,
            "condition": row.condition,
            "noise": dict(row.noise),
            "without": [
                {"group": one.group, "rank": one.rank, "score": one.score, "difference": one.difference}
                for one in row.counterparts
            ],
        }
        for row in gallery.rows
    ]
    return {"gallery": rows, "gallery_notes": gallery.notes}


def to_latex(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A booktabs tabular; a column is right-aligned if its every known value is a number."""
    body = [list(row) for row in rows]
    for row in body:
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row)} cells, the header {len(columns)}")
    align = "".join("r" if _numeric([row[j] for row in body]) else "l" for j in range(len(columns)))
    lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", _latex_line(columns), r"\midrule"]
    lines += [_latex_line(row) for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _numeric(cells: Sequence[object]) -> bool:
    known = [c for c in cells if c is not None]
    return bool(known) and all(isinstance(c, (int, float, np.number)) for c in known)


def _latex_line(cells: Sequence[object]) -> str:
    return " & ".join(latex_escape(_latex_text(cell)) for cell in cells) + r" \\"


def _latex_text(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "--"
    if isinstance(cell, float):
        return f"{cell:.3g}".replace("-", MINUS)
    return str(cell)


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX.get(c, " " if c in "\r\n\t" else c) for c in text)
