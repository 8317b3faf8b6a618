"""Prompts taken apart into object and style, and what the styles of groups are called."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guda_cli.data.dataset import Dataset
from guda_cli.data.sources.names import composed
from guda_cli.data.sources.rows import check_unicode
from guda_cli.errors import DataError, nearest
from guda_cli.phrases import few, plural
from guda_cli.sections import TextSpec


@dataclass(frozen=True)
class ParsedPrompt:
    """What a prompt shows, and the descriptors of the style it asks for."""

    object: str
    descriptors: tuple[str, ...]


def parse_prompt(text: str, spec: TextSpec) -> ParsedPrompt | None:
    """`text` by `spec.pattern`, whose groups are object and style; None when it does not match as a whole.

    Descriptors are the parts of the style between `spec.separator`, stripped, empty ones dropped.
    """
    found = re.fullmatch(spec.pattern, text)
    if found is None:
        return None
    style = found["style"] or ""
    parts = style.split(spec.separator) if spec.separator else [style]
    return ParsedPrompt((found["object"] or "").strip(), tuple(p.strip() for p in parts if p.strip()))


def render(object: str, descriptors: Sequence[str], spec: TextSpec) -> str:
    """The prompt of `object` in the style of `descriptors` by `spec.template`: the inverse of `parse_prompt`.

    Without descriptors it is the object alone.
    """
    if not descriptors:
        return object
    values = {"{object}": object, "{style}": spec.separator.join(descriptors)}
    # One pass, so that braces in an object or descriptor are left alone.
    return re.sub(r"\{object\}|\{style\}", lambda found: values[found[0]], spec.template)


def styles_of(
    dataset: Dataset, spec: TextSpec, given: Mapping[str, Sequence[str]] | None
) -> dict[str, tuple[str, ...]]:
    """Each group's style descriptors, sorted, without repeats.

    From `given` (see `read_descriptors`) for all groups, or else from the descriptors in the metadata of a
    group's images, or else from their prompts. DataError naming the groups that have none.
    """
    found = {group: _descriptors(dataset, group, spec, given) for group in dataset.groups}
    bare = [group for group, own in found.items() if not own]
    if not bare:
        return found
    which = f"{plural(len(bare), 'group has', 'groups have')} no style descriptors: {few(bare)}"
    if given is not None:
        guess = nearest(bare[0], sorted(given))
        raise DataError(
            which,
            why="text.descriptors names a file that has none for them",
            fix=f"add them to the file; is '{guess}' meant for '{bare[0]}'?"
            if guess
            else "add them to the file",
        )
    seen = next((text for text in dataset.prompts if text), None)
    example = f", such as {seen[:120]!r}," if seen else ""
    raise DataError(
        which,
        why=f"no prompt of theirs{example} matches text.pattern {spec.pattern!r} with a style",
        fix="correct text.pattern, or name a file with text.descriptors or a metadata column with "
        "data.descriptors",
    )


def _descriptors(
    dataset: Dataset, group: str, spec: TextSpec, given: Mapping[str, Sequence[str]] | None
) -> tuple[str, ...]:
    if given is not None:
        return tuple(sorted(set(given.get(group, ()))))
    rows = np.flatnonzero(dataset.members(group)).tolist()
    named = {text for i in rows for text in dataset.descriptors[i] or ()}
    if not named:
        parsed = (parse_prompt(text, spec) for i in rows if (text := dataset.prompts[i]))
        named = {text for found in parsed if found is not None for text in found.descriptors}
    return tuple(sorted(named))


def read_descriptors(path: Path) -> dict[str, tuple[str, ...]]:
    """Descriptors of groups from a JSON file: `{group: [...]}` or `{group: {"descriptors": [...]}}`.

    DataError naming the file when it cannot be read or is something else.
    """
    fix = 'write {"group": ["thin outlines", "flat colours"], ...}, and name the file in text.descriptors'
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as err:
        raise DataError(f"cannot read {path}", why=err.strerror or str(err), fix=fix) from None
    except (ValueError, RecursionError) as err:
        raise DataError(f"{path} is not JSON", why=str(err), fix=fix) from None
    if not isinstance(values, dict):
        raise DataError(f"{path} is not a JSON object of groups", fix=fix)
    check_unicode(values, str(path), "group")
    found = {composed(group): _texts(value, group, path, fix) for group, value in values.items()}
    if len(found) < len(values):
        raise DataError(f"{path} names a group twice, in two Unicode forms", fix="keep one of them")
    return found


def _texts(value: Any, group: str, path: Path, fix: str) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = value.get("descriptors")
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{path}: the descriptors of '{group}' are not a list of texts", fix=fix)
    return tuple(text.strip() for text in value if text.strip())


def check_captions(dataset: Dataset) -> None:
    """DataError naming some of the images without prompt; a text-conditional model needs one for each."""
    bare = [name for name, text in zip(dataset.names, dataset.prompts, strict=True) if not text]
    if bare:
        raise DataError(
            f"{len(bare)} of {plural(len(dataset), 'image', 'images')} "
            f"{'has' if len(bare) == 1 else 'have'} no prompt: {few(bare, 3)}",
            why="model.text_conditional is true: every training image needs its caption",
            fix="write metadata.jsonl with file_name and prompt beside the images, or name a file of such "
            "lines with data.prompts",
        )


def content_ids(dataset: Dataset, spec: TextSpec | None = None) -> tuple[str, ...]:
    """What each image shows, the same for images of other groups that show it too; one an image.

    Where the group of every image is its top folder and a folder of the object lies below, its name from
    there without the ending (`<object>/<id>`). Otherwise the object part of its prompt by `spec` (the default
    one for None); where there is none, its name without group and ending, or if that is but a number the
    whole name.
    """
    spec = spec or TextSpec()
    stems = [posixpath.splitext(name)[0] for name in dataset.names]
    by_group = all(_only_group(dataset, i) == stem.partition("/")[0] for i, stem in enumerate(stems))
    below = [stem.partition("/")[2] if by_group else "" for stem in stems]
    if all("/" in name for name in below):
        return tuple(below)
    parsed = [parse_prompt(text, spec) if text else None for text in dataset.prompts]
    own = [stem if name.isdigit() else name or stem for name, stem in zip(below, stems, strict=True)]
    return tuple(found.object if found else name for found, name in zip(parsed, own, strict=True))


def _only_group(dataset: Dataset, row: int) -> str | None:
    held = np.flatnonzero(dataset.membership[row])
    return dataset.groups[held[0]] if len(held) == 1 else None
