"""The prompts of a query image, for text-conditional models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from guda_cli.data.beside import MetadataBeside
from guda_cli.data.embedded import embedded
from guda_cli.data.sources.captions import caption_of, rows_of
from guda_cli.data.sources.names import composed, on_disk
from guda_cli.data.sources.rows import PROMPT_COLUMNS, check_size, decoded, has_any
from guda_cli.errors import DataError


class Prompts:
    """Which prompts a query image is scored with; the first source that names one counts.

    These are `given` (all of them), the `table` of `read_prompts`, the metadata beside or above the image,
    what its generator wrote into the file (see `embedded`), and else the empty prompt, the null condition.
    """

    prompts = True

    def __init__(self, given: Sequence[str] = (), table: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._given = tuple(dict.fromkeys(given))
        self._table = dict(table or {})
        self._beside = MetadataBeside()
        self._known: dict[str, tuple[str, ...]] = {}
        self._notes: dict[str, str] = {}

    def of(self, path: str) -> str | None:
        """The (first) prompt of the image at `path`, None for the empty prompt; errors as `all_of`."""
        return self.all_of(path)[0] or None

    def all_of(self, path: str) -> tuple[str, ...]:
        """All prompts of the image at `path`, over which scores are averaged; one at least, ("",) for none.

        DataError when the metadata beside it cannot be used.
        """
        if path not in self._known:
            self._known[path] = self._search(path)
        return self._known[path]

    def note_of(self, path: str) -> str:
        """What a user should know of how the prompt of the image at `path` was read; "" for nothing."""
        self.all_of(path)
        return self._notes.get(path, "")

    def _search(self, path: str) -> tuple[str, ...]:
        if self._given:
            return self._given
        for key in (os.path.abspath(path), os.path.normpath(path)):  # noqa: PTH100 - links are not followed
            if composed(key) in self._table:
                return self._table[composed(key)]
        here = Path(path)
        metadata, name = self._beside.of(here, "--prompt TEXT")
        text = metadata.prompt(name)
        if text is not None:
            return (text.strip(),)
        written = embedded(here)
        if written.prompt is None:
            self._notes[path] = written.why
        elif written.left_out:
            self._notes[path] = f"left out of its prompt: {' '.join(written.left_out)}"
        return (written.prompt or "",)


def read_prompts(path: Path) -> dict[str, tuple[str, ...]]:
    """The prompts of images from a file of `image` and `prompt`: CSV with a header, or JSON lines.

    Several rows of an image are several prompts. Keys are paths as they are written and as absolute paths
    below the file's folder, both normalised. The columns may also be called as in training data (file_name,
    file, path; text, caption). DataError naming file and line for anything else.
    """
    path = on_disk(path)
    try:
        check_size(path.stat().st_size, str(path))
        text = decoded(path.read_bytes(), str(path))
    except OSError as err:
        raise DataError(
            f"cannot read {path}", why=err.strerror or str(err), fix="correct --prompts"
        ) from None
    found: dict[str, list[str]] = {}
    for line, row in rows_of(text, str(path), path.name):
        where = f"{path}, line {line}"
        image, prompt = caption_of(row, where)
        if not has_any(list(row), PROMPT_COLUMNS) and text.lstrip().startswith("{"):
            raise DataError(f"{where} names no prompt", why="every row needs image and prompt")
        for key in _keys(image, path.parent):
            found.setdefault(key, []).append(prompt.strip())
    if not found:
        raise DataError(f"{path} holds no prompts", fix="write rows of image and prompt")
    return {key: tuple(dict.fromkeys(prompts)) for key, prompts in found.items()}


def _keys(image: str, folder: Path) -> set[str]:
    """What an image may be called that a file of prompts in `folder` names: as written, and absolute.

    Composed; backslashes are part of a name or, as Windows writes it, part folders.
    """
    names = {image, image.replace("\\", "/")}
    return {
        composed(key)
        for name in names
        for key in (os.path.normpath(name), os.path.abspath(folder / name))  # noqa: PTH100
    }
