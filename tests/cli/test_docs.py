"""The generated reference and the JSON schemas."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guda_cli.sections import Recipe, to_dict

DOCS = Path(__file__).parent.parent.parent / "docs"
SCHEMAS = sorted((DOCS / "schemas").glob("*.json"))


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "generate_cli.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_map_of_the_code_names_every_module() -> None:
    """And every file that it speaks of is there."""
    said = (DOCS / "code.md").read_text("utf-8")
    prose, _, listing = said.partition("<!-- modules -->")
    for top in ("guda", "guda_cli", "store"):
        for path in (DOCS.parent / top).rglob("*.py"):
            name = path.parent.relative_to(DOCS.parent).as_posix()
            room = listing.partition(f"**`{name}/`**: ")[2].partition("**`")[0]
            assert room, f"{name} is missing in docs/code.md"
            assert path.name == "__init__.py" or f"- `{path.name}`: " in room, f"{path} is missing"
    spoken = set(re.findall(r"`([a-z_/]+/[a-z_/]+(?:\.py)?)`", prose))
    assert spoken
    for name in spoken:
        places = (DOCS.parent / "guda_cli" / name, DOCS.parent / name)
        assert any(place.exists() for place in places), f"docs/code.md speaks of {name}"


def test_what_families_can_do_is_said_by_tests_that_there_are() -> None:
    said = set(re.findall(r"`(test_[a-z0-9_]+)`", (DOCS / "text-to-image.md").read_text("utf-8")))
    assert said
    files = (path.read_text("utf-8") for path in (DOCS.parent / "tests").rglob("test_*.py"))
    known = {name for text in files for name in re.findall(r"def (test_\w+)", text)}
    assert not said - known


def test_every_schema_names_a_document_of_its_own() -> None:
    schemas = [json.loads(path.read_text()) for path in SCHEMAS]
    names = [schema["properties"]["schema"]["const"] for schema in schemas]
    assert len(set(names)) == len(names)
    assert all("schema" in schema["required"] for schema in schemas)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_schemas_use_only_what_the_check_knows(path: Path) -> None:
    """The check of the tests (conftest.py) reads these keywords and no others."""
    known = {
        "$schema", "$id", "$defs", "$ref", "title", "description", "type", "const", "enum", "properties",
        "required", "additionalProperties", "items", "minimum", "maximum", "pattern",
    }  # fmt: skip

    def visit(schema: dict) -> None:
        assert set(schema) <= known
        for group in ("properties", "$defs"):
            for inner in schema.get(group, {}).values():
                visit(inner)
        for name in ("items", "additionalProperties"):
            if isinstance(schema.get(name), dict):
                visit(schema[name])

    visit(json.loads(path.read_text()))


def test_recipes_are_json() -> None:
    assert json.loads(json.dumps(to_dict(Recipe()), allow_nan=False))["name"] == "unnamed"
