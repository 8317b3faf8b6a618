"""Values as cells and lines of a CSV file: all the digits a number has, nothing where nothing is known."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from guda_cli.jsonable import plain
from guda_cli.plain_text import unicode
from guda_cli.report.pieces.text import finite


def csv_cell(value: object, *, number: bool = False) -> object:
    """What the csv module is given for a value.

    A ``number`` is written so that it reads back to the same float64, and is empty where it is missing or not
    finite. Otherwise None and an empty mapping are empty, a truth value is ``true`` or ``false``, a mapping
    JSON, and all else stands as it is.
    """
    if number:
        known = finite(value)
        return "" if known is None else repr(known)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return json.dumps(plain(value), sort_keys=True) if value else ""
    return "" if value is None else value


def csv_line(row: Sequence[object]) -> str:
    """A line without its end. Cells with a line feed or a carriage return are quoted.

    What UTF-8 cannot encode is spelled as `plain_text.spelled` says.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(row)
    return unicode(out.getvalue().removesuffix("\r\n"))
