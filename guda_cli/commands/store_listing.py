"""What `guda store ls` prints: a line a kind, or a line a record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from guda_cli.errors import UsageError, unknown
from guda_cli.phrases import human_bytes, human_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from guda_cli.console import Console
    from guda_cli.store import ActionRecord, Store

SHORT = 12  # digits of a key that are shown
TABLE = "table"
WIDE_ENOUGH = 105  # characters, for words in the table of kinds
WORDS = {
    "dataset": "images and their groups",
    "train": "full models, and models trained without groups",
    "register": "models taken over with --from",
    "unlearn": "models that groups were unlearned from",
    "pipeline": "pipelines that trainings start from",
    "vae": "autoencoders",
    "text-encoder": "text encoders",
    "latents": "latents of the images",
    "embeddings": "embeddings of the prompts",
    "small-copies": "small copies of the images",
    "look-accuracy": "how sure `looks like` is",
    "sample": "drawn images",
    "score": "images that were scored",
    "elbo-table": "terms of scored images, a table a model",
    "precision": "how exact forwards must be on a GPU",
    "term-sizes": "how large terms are, by timestep",
    "calibration": "images that verdicts are calibrated on",
    "familiar": "how the training images look to a model",
    "distances": "distances to retrained models",
    "attribution": "what rival methods prepare of training images",
    "instance-scores": "scores of single training images, tables",
    "import": "scores from files",
}


def document(
    store: Store, records: Sequence[ActionRecord], tables: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The `guda.store/1` document."""
    pins = store.pins()
    return {
        "schema": "guda.store/1",
        "store": store.root,
        "records": [_summary(store, record, pins) for record in records],
        "tables": [_table_summary(table) for table in tables],
        "bytes": store.usage()["bytes"],
    }


def kinds_table(console: Console, found: dict[str, Any], width: int) -> Table:
    """A line a kind: how many, their bytes, the newest's age, how many are pinned; words if there is room."""
    rows: list[tuple[object, ...]] = []
    for kind in kinds_of(found):
        records = [r for r in found["records"] if r["operation"] == kind]
        tables = [t for t in found["tables"] if _kind_of_table(t) == kind]
        newest = _age(max(r["created"] for r in records)) if records else None
        size = human_bytes(sum(entry["bytes"] for entry in [*records, *tables]))
        pinned = sum(r["pinned"] for r in records)
        rows.append((kind, len(records) + len(tables), size, newest, pinned or "", WORDS.get(kind, "")))
    columns = ["kind", "number", "size", "newest", "pinned", "what"]
    if width < WIDE_ENOUGH:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return console.table(columns, rows, right=("number", "size", "newest"))


def kinds_of(found: dict[str, Any]) -> list[str]:
    """The kinds in a document, in the order of the work."""
    there = {r["operation"] for r in found["records"]} | {_kind_of_table(t) for t in found["tables"]}
    order = [*WORDS, *sorted(there)]
    return sorted(there, key=order.index)


def of_kind(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """The part of a document that is of one kind; UsageError, with the nearest, for an unknown one."""
    known = kinds_of(found)
    if kind not in known and kind not in WORDS:
        raise UsageError(unknown("kind", kind, known or WORDS), fix="guda store ls")
    records = [r for r in found["records"] if r["operation"] == kind]
    tables = [t for t in found["tables"] if _kind_of_table(t) == kind]
    return {**found, "records": records, "tables": tables}


def records_table(console: Console, found: dict[str, Any]) -> Table:
    """A line a record."""
    columns = ("key", "kind", "name", "size", "age", "pinned")
    return console.table(columns, [_record_row(r) for r in found["records"]], right=("size", "age"))


def tables_table(console: Console, found: dict[str, Any]) -> Table:
    """A line a table."""
    rows = [
        (t["key"][:SHORT], _kind_of_table(t), t["rows"], t["segments"], human_bytes(t["bytes"]))
        for t in found["tables"]
    ]
    return console.table(("table", "kind", "rows", "segments", "size"), rows, right=("size",))


def sizes(store: Store, record: ActionRecord) -> dict[str, int | None]:
    """Bytes of each output; None for one that is gone."""
    return {
        name: store.blob_size(digest) if store.has_blob(digest) else None
        for name, digest in record.outputs.items()
    }


def _summary(store: Store, record: ActionRecord, pins: dict[str, Any]) -> dict[str, Any]:
    found = sizes(store, record)
    return {
        "key": record.key,
        "operation": record.operation,
        "what": str(record.provenance.get("what", "")),
        "bytes": sum(size or 0 for size in found.values()),
        "complete": None not in found.values(),
        "created": record.created,
        "pinned": record.key in pins,
    }


def _record_row(summary: dict[str, Any]) -> tuple[object, ...]:
    size = human_bytes(summary["bytes"]) if summary["complete"] else "incomplete"
    pinned = "yes" if summary["pinned"] else ""
    what = summary["what"] or None
    return summary["key"][:SHORT], summary["operation"], what, size, _age(summary["created"]), pinned


def _table_summary(table: dict[str, Any]) -> dict[str, Any]:
    return {"key": table["table"], **{name: table[name] for name in ("spec", "segments", "rows", "bytes")}}


def _kind_of_table(table: dict[str, Any]) -> str:
    return str((table["spec"] or {}).get("operation", TABLE))


def _age(created: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return human_seconds(max(0.0, seconds)).split(".")[0].removesuffix(" s") + " s"
