from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guda_cli.report.answers import formats
from tests.report.builders import query, report, score

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def validate(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> None:
    """As much of JSON schema as the two files use."""
    if "$ref" in schema:
        return validate(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at)
    known = {"type", "const", "enum", "items", "properties", "required", "additionalProperties", "minimum"}
    assert schema.keys() <= known | {"description", "$schema", "$id", "$defs", "title"}
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        fits = [isinstance(value, TYPES[n]) and (n == "boolean" or value is not True) for n in names]
        assert any(fits), (at, value, names)
    assert value == schema.get("const", value), at
    assert value in schema.get("enum", [value]), at
    if isinstance(value, list):
        for i, item in enumerate(value):
            validate(item, schema.get("items", {}), root, f"{at}[{i}]")
    if isinstance(value, dict):
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
        assert set(schema.get("required", [])) <= value.keys(), at
        for key, item in value.items():
            assert key in properties or extra is not False, (at, key)
            other = extra if isinstance(extra, dict) else {}
            validate(item, properties.get(key, other), root, f"{at}.{key}")
    return None


def schema(name: str) -> dict[str, Any]:
    loaded = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_csv_round_trip() -> None:
    model = report()
    rows = list(csv.DictReader(io.StringIO(formats.to_csv(model))))
    assert len(rows) == 9
    assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
    assert [float(row["score"]) for row in rows[:3]] == [1.0, 0.5, -0.25]
    assert rows[2]["group"] == "<b>&ship"
    assert {row["stands_out"] for row in rows} == {"false"}
    assert {(row["method"], row["weighting"]) for row in rows} == {("guda", "min-snr:5")}
    assert float(rows[0]["low"]) == model.queries[0].scores[0].low


def test_csv_lines_of_the_queries_make_up_the_csv() -> None:
    model = report()
    lines = [
        line
        for i, one in enumerate(model.queries)
        for line in formats.csv_lines(one, "guda", "min-snr:5", header=i == 0)
    ]
    assert "\n".join([*lines, ""]) == formats.to_csv(model)


def test_csv_keeps_odd_names_and_leaves_out_what_is_not_known() -> None:
    odd = query('a,"b"\nc', {}, None, scores=(score("g", float("nan"), None, None),))
    (row,) = csv.DictReader(io.StringIO(formats.to_csv(report((odd,)))))
    assert row["query"] == 'a,"b"\nc'
    assert [row[k] for k in ("score", "z", "p", "stands_out", "looks_like")] == [""] * 5


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\r\nb"])
def test_a_line_end_in_a_name_ends_no_line(name: str) -> None:
    odd = query(name, {}, None, scores=(score(name, 1.0, None, None),))
    text = formats.to_csv(report((odd,)))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["query"], row["group"], row["score"]) == (name, name, "1.0")


def test_report_document_is_strict_json_and_fits_its_schema() -> None:
    text = json.dumps(formats.to_json(report()), allow_nan=False)
    document = json.loads(text)
    validate(document, schema("report"), schema("report"))
    assert document["provenance"]["loss"] is None
    assert document["matrix"][0] == {
        "looks_like": "cat",
        "queries": 2,
        "scores": {"cat": 2.0, "dog": 0.0, "<b>&ship": 0.25},
    }


def test_score_document_fits_its_schema() -> None:
    one = query("x.png", {"cat": float("inf"), "dog": 1.0}, elbo_nats=-3.0, answer=("cat",))
    document = formats.score_document(
        one, method="guda", weighting="elbo", unit="nats", draws=np.int64(2), steps=np.arange(2)
    )
    validate(json.loads(json.dumps(document, allow_nan=False)), schema("score"), schema("score"))
    assert document["scores"][0]["score"] is None
    assert document["answer"] == ["cat"]
    assert document["draws"] == 2
    assert document["steps"] == [0, 1]


def test_score_document_refuses_missing_and_reserved_fields() -> None:
    with pytest.raises(ValueError, match="unit"):
        formats.score_document(query("x", {}), method="guda", weighting="elbo")
    with pytest.raises(ValueError, match="digest"):
        formats.score_document(query("x", {}), method="guda", weighting="elbo", unit="nats", digest="0")
