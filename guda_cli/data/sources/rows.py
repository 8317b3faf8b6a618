"""Rows of text files that speak of images: JSON lines and CSV, decoded, with line numbers and gaps told."""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guda_cli import git_lfs
from guda_cli.data.sources.names import composed
from guda_cli.errors import DataError
from guda_cli.phrases import human_bytes

PROMPT_COLUMNS = ("prompt", "text", "caption")
IMAGE_COLUMNS = ("file_name", "image", "file", "path")
"""Where files of prompts name their image; metadata files have `file_name` only."""
MOST_BYTES = 100 << 20
"""Of all files of metadata of a source together; their rows take up to fifteen times as much memory."""
MOST_LINES = 2_000_000
LONGEST = 4 << 20  # characters in a line: what it holds is taken apart at once
MISSING = frozenset(
    {
        *("", "nan", "NaN", "-nan", "-NaN", "<NA>", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA"),
        *("null", "NULL", "None", "NaT", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    }
)
"""Texts that stand for a missing value: those that pandas reads as one."""

_PADDED = 40  # characters from which on a text that is not blank stands for nothing missing

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SEPARATOR = re.compile(r"sep=([,;\t])\s*")  # the first line of some CSV files, for spreadsheets
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Nested:
    """Stands for a value that nothing is asked of: an object, or a list of more than single values."""

    kind: str


_OBJECT, _LISTS = Nested("an object"), Nested("a list within a list")


def missing(value: object) -> bool:
    """Whether a value stands for none: null, NaN, or one of the texts in MISSING."""
    if isinstance(value, str):
        return (len(value) < _PADDED or value.isspace()) and value.strip() in MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def check_size(size: int, where: str) -> None:
    """DataError for more bytes than are read."""
    if size > MOST_BYTES:
        raise DataError(
            f"{where}: {human_bytes(size)} are more than {human_bytes(MOST_BYTES)}",
            why="all rows are held in memory",
            fix="leave out columns that are not needed",
        )


def decoded(data: bytes, where: str) -> str:
    """As `text_of`, within bounds: DataError for more bytes or lines than are read."""
    check_size(len(data), where)
    text = text_of(data, where)
    if max(text.count("\n"), text.count("\r")) > MOST_LINES:
        raise DataError(f"{where} has more than {MOST_LINES:,} lines")
    return text


def text_of(data: bytes, where: str) -> str:
    """The text of a file: UTF-8, or UTF-16 or 32 with a byte order mark. DataError for anything else."""
    if git_lfs.is_pointer(data):
        raise DataError(f"{where} is not there", why=git_lfs.WHY, fix="git lfs pull")
    codec = next((codec for mark, codec in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as err:
        raise DataError(
            f"{where} is not {codec.removesuffix('-sig').upper()} text",
            why=str(err),
            fix="save it as UTF-8 (spreadsheets call that CSV UTF-8)",
        ) from None
    if "\0" in text:
        raise DataError(
            f"{where} holds NUL characters",
            why="it may be UTF-16 without a byte order mark",
            fix="save it as UTF-8",
        )
    return text


def json_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of JSON lines; DataError naming `where` and the line for anything else.

    Missing values are None. Names of columns are composed (NFC).
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    number, end = 1, 0
    for found in re.finditer(r"[^\n]+", text):
        number += text.count("\n", end, found.start())
        line, end = found[0], found.start()
        if not line.strip():
            continue
        _check_length(line, where, number)
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise DataError(
                f"{where}, line {number} is not JSON", why=str(err), fix="write one JSON object a line"
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{where}, line {number} is not a JSON object")
        if _HALF.search(line):
            check_unicode(row, f"{where}, line {number}")
        yield number, _named(row, f"{where}, line {number}")


def csv_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of CSV with a header, missing cells left out; DataError as in `json_rows`.

    See `csv_header` for what parts the columns.
    """
    names, mark, before = csv_header(text, where)
    reader = csv.reader(_lines(text, before, where), strict=True, delimiter=mark)
    try:
        header = True
        for cells in reader:
            if header or not cells:
                header = header and not cells
                continue
            if any(cells[len(names) :]):
                raise DataError(f"{where}, line {reader.line_num + before} has more fields than the header")
            row = {name: cell for name, cell in zip(names, cells, strict=False) if name and not missing(cell)}
            yield reader.line_num + before, row
    except csv.Error as err:
        raise DataError(f"{where}, line {reader.line_num + before} is not CSV", why=str(err)) from None


def csv_header(text: str, where: str, image: Sequence[str] = IMAGE_COLUMNS) -> tuple[list[str], str, int]:
    """Names of columns, what parts them, and how many lines stand before.

    A line `sep=;` names it; else it is the comma, semicolon or tab by which the first line has a column that
    names images (one of `image`), or the first of these that is in it at all. DataError for two columns of
    one name.
    """
    first = next(_lines(text, 0, where), "")
    said = _SEPARATOR.fullmatch(first)
    marks = [said[1]] if said else [mark for mark in ",;\t" if mark in first] or [","]
    before = int(bool(said))
    try:
        headers = [_header(_lines(text, before, where), mark) for mark in marks]
    except csv.Error as err:
        raise DataError(f"{where}: its first line is not CSV", why=str(err)) from None
    found = next((i for i, header in enumerate(headers) if has_any(header, image)), 0)
    names, mark = headers[found], marks[found]
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise DataError(f"{where} has two columns '{twice[0]}'", fix="rename or remove one of them")
    return names, mark, before


def _header(lines: Iterator[str], mark: str) -> list[str]:
    """The cells of the first row that is not empty, composed."""
    rows = csv.reader(lines, delimiter=mark)
    return [composed(cell.strip()) for cell in next(filter(None, rows), [])]


def has_any(columns: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether one of the columns is among the wanted ones."""
    return not set(columns).isdisjoint(wanted)


def _lines(text: str, skip: int, where: str) -> Iterator[str]:
    """The lines of `text` with their ends, from the `skip`-th on."""
    for number, found in enumerate(_LINE.finditer(text)):
        if number >= skip:
            _check_length(found[0], where, number + 1)
            yield found[0]


def _check_length(line: str, where: str, number: int) -> None:
    if len(line) > LONGEST:
        raise DataError(
            f"{where}, line {number} has more than {LONGEST:,} characters", why="a line is about one image"
        )


def row_of(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row that was read otherwise, as `json_rows` would give it; DataError naming `where`."""
    check_unicode(dict(values), where)
    return _named(dict(values), where)


def _named(row: dict[str, Any], where: str) -> dict[str, Any]:
    """`row` with composed names of columns, and values as `_kept` has them."""
    out = {composed(name): _kept(value) for name, value in row.items()}
    if len(out) < len(row):
        raise DataError(f"{where} has two fields of one name in two Unicode forms", fix="rename one of them")
    return out


def _kept(value: Any) -> Any:
    """None where a value other than "" is missing, and what is nested without what it holds."""
    if isinstance(value, str):
        return None if value != "" and missing(value) else value
    if isinstance(value, dict):
        return _OBJECT
    if isinstance(value, list):
        inner = next((item for item in value if isinstance(item, (dict, list))), None)
        return value if inner is None else _OBJECT if isinstance(inner, dict) else _LISTS
    return None if missing(value) else value


def check_unicode(values: dict[str, Any], where: str, kind: str = "column") -> None:
    """DataError naming the entry that holds half of a surrogate pair, which is no character."""
    for name, value in values.items():
        try:
            json.dumps([name, value], ensure_ascii=False, default=str).encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(
                f"{where}, {kind} {name!a}: {json.dumps(value)[:80]} is no Unicode text",
                why="it holds half of a surrogate pair, as a text has that was cut inside a character",
                fix="write the character itself, in UTF-8",
            ) from None
