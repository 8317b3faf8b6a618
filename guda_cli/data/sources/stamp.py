"""Fingerprints: whether a source may have changed, asked of the file system only."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from guda_cli.data.sources.detect import format_of, locate
from guda_cli.data.sources.file_sets import archives
from guda_cli.data.sources.folder import walk
from guda_cli.data.sources.names import clean_root
from guda_cli.data.versions import DATASET_VERSION, PREPROCESSING_VERSION
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec


def fingerprint(spec: DataSpec) -> str:
    """SHA-256 (hex) of sizes, times and names of the files behind `spec`, and of what it asks for.

    Nothing is opened or decoded. A folder counts by its files' relative paths, so it may be moved
    with its times; a single file also by its absolute path. DataError when the path is missing.
    """
    kind, path = locate(spec)
    values = {
        "schema": "guda.fingerprint/1",
        "versions": [DATASET_VERSION, PREPROCESSING_VERSION],
        "kind": kind,
        "source": spec.source,
        "root": clean_root(spec.root),
        "group": list(spec.group),
        "groups": sorted(set(spec.groups)),
        "size": spec.size,
        "channels": spec.channels,
        "per_group": spec.per_group,
        "files": _files(kind, path) + _prompts_file(spec),
    }
    later = {name: getattr(spec, name) for name in ("common", "prompts", "descriptors")}
    values |= {name: value for name, value in later.items() if value is not None}
    values |= {"held_out": spec.held_out} if spec.held_out else {}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _files(kind: str, path: Path | None) -> list[Any]:
    if path is None:
        return [_stat(digits_file())]
    own = format_of(kind)
    if own:
        return [_stat(file) for file in own.files(path)]
    if kind == "folder":
        return [[name, info.st_size, info.st_mtime_ns] for name, info in walk(path)]
    return [_stat(part) for part in archives(path)]


def _prompts_file(spec: DataSpec) -> list[Any]:
    """`data.prompts` where it is a file of its own; one inside the data is counted there."""
    if spec.prompts is None or not Path(spec.prompts).is_absolute():
        return []
    return [_stat(Path(spec.prompts))]


def _stat(path: Path) -> list[Any]:
    try:
        info = path.stat()
    except OSError as err:
        raise DataError(f"cannot look at {path}", why=err.strerror or str(err)) from None
    return [os.path.abspath(path), info.st_size, info.st_mtime_ns]  # noqa: PTH100


def digits_file() -> Path:
    """scikit-learn's bundled digits, found without importing it."""
    found = importlib.util.find_spec("sklearn")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataError(
        "scikit-learn's digits are not installed",
        why="data.source: digits reads the copy bundled with scikit-learn",
        fix="pip install scikit-learn",
    )
