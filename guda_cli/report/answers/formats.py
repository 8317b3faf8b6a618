"""Scores as CSV and JSON. The documents are described in docs/table-formats.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from guda_cli.jsonable import plain
from guda_cli.report.answers import columns
from guda_cli.report.answers.columns import Kind, View
from guda_cli.report.answers.content import Gallery, QueryResult, Regeneration, ReportModel
from guda_cli.report.answers.words import sign
from guda_cli.report.pieces.csv_cells import csv_cell, csv_line

REPORT_SCHEMA = "guda.report/1"
SCORE_SCHEMA = "guda.score/1"


def to_csv(report: ReportModel) -> str:
    """One line a query and group, ranked; empty cells where there is no value."""
    lines = [csv_line(_names())]
    for query in report.queries:
        lines += csv_lines(query, report.method, report.weighting)
    return "\n".join([*lines, ""])


def csv_lines(query: QueryResult, method: str, weighting: str, *, header: bool = False) -> list[str]:
    """One query's lines of the CSV, without line ends; ``header`` puts the column names first."""
    shown = columns.pick(View.CSV)
    rows: list[list[object]] = [_names()] if header else []
    for line in columns.ranked(query, method=method, weighting=weighting):
        rows.append([csv_cell(column.datum(line), number=column.kind is Kind.NUMBER) for column in shown])
    return [csv_line(row) for row in rows]


def _names() -> list[object]:
    return [column.name for column in columns.pick(View.CSV)]


def query_document(query: QueryResult) -> dict[str, Any]:
    """One query's part of both JSON documents.

    ``class`` only where it was scored with one, ``instances`` only where the method scores single images.
    """
    shown = columns.pick(View.JSON)
    ranked = [{column.name: column.datum(line) for column in shown} for line in columns.ranked(query)]
    document: dict[str, Any] = {
        "image": query.name,
        "digest": query.digest,
        "looks_like": query.looks_like,
        "answer": query.answer,
        "scores": ranked,
        "elbo": {"nats": query.elbo_nats, "se": query.elbo_se, "bits_per_dim": query.bits_per_dim},
    }
    if query.unlike is not None:
        document["unlike"] = query.unlike
    if query.confidence is not None:
        document["confidence"] = query.confidence
    if query.race is not None:
        document["race"] = query.race._asdict()
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
            "looks": report.looks._asdict() if report.looks else None,
            "null": report.null,
            "retraining": report.retraining,
            "queries": [query_document(query) for query in report.queries],
            "mean_scores": [{"group": g, "mean": mean, "se": se} for g, mean, se in report.mean_scores],
            "matrix": [
                {"looks_like": row, "queries": report.matrix_counts.get(row), "scores": dict(cells)}
                for row, cells in report.matrix.items()
            ],
            "training_check": report.training_check,
            "checks": [asdict(check) for check in report.checks],
            "costs": [asdict(row) for row in report.costs],
            "warnings": report.warnings,
            "provenance": report.provenance,
            **(_gallery_documents(report.gallery) if report.gallery else {}),
            **({"regeneration": _regeneration(report.regeneration)} if report.regeneration else {}),
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


def _regeneration(found: Regeneration) -> dict[str, Any]:
    rows = [
        {
            "image": row.image,
            "digest": row.digest,
            "groups": row.groups,
            "others": row.others,
            "changes": {name: {"top": top, "others": rest} for name, (top, rest) in row.changes.items()},
        }
        for row in found.rows
    ]
    return {
        "top": found.top,
        "by": found.by,
        "changes": [change._asdict() for change in found.changes],
        "images": rows,
        "notes": found.notes,
    }
