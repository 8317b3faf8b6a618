"""The class of a query image, for class-conditional models."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from guda_cli.data.beside import MetadataBeside
from guda_cli.data.sources.names import composed
from guda_cli.errors import DataError, UsageError, unknown

PNG_KEY = "guda:class"
"""Keyword of the PNG text chunk in which `guda sample` writes an image's class."""
COLUMN = "class"
"""Column of a metadata file beside the images that names their class."""


@dataclass(frozen=True)
class Classes:
    """Class names of a model in the order of its embeddings, and the index of its null class, if any."""

    names: tuple[str, ...]
    null: int | None

    def index(self, name: str | None) -> int:
        """Embedding of a class; of the null class for None. DataError when the model has no such class."""
        if name is None:
            if self.null is None:
                raise DataError("this model has no null class: every image needs a class", fix="--class NAME")
            return self.null
        if name not in self.names:
            raise DataError(unknown("class", name, self.names))
        return self.names.index(name)


class Conditions:
    """Which class a query image is scored with: `given`, or what its file or the metadata beside it name."""

    prompts = False

    def __init__(self, classes: Classes, given: str | None = None) -> None:
        given = given if given is None else composed(given)
        if given is not None and given not in classes.names:
            raise UsageError(unknown("class", given, classes.names), fix="guda status --all-rows")
        self.classes, self.given = classes, given
        self._beside = MetadataBeside()

    def of(self, path: str) -> str | None:
        """The class name for the image at `path`, None for the null class.

        DataError when the named class is none of the model's, or when none is named and the model has no
        null class.
        """
        if self.given is not None:
            return self.given
        name, where = png_class(Path(path)), "its PNG text"
        if name is None:
            name, where = self._from_metadata(Path(path)), "the metadata beside it"
        if name is not None and name not in self.classes.names:
            why = f"{where}: {unknown('class', name, self.classes.names)}"
        elif name is None and self.classes.null is None:
            why = "no class is named for it, and the model has no null class"
        else:
            return name
        raise DataError(f"cannot use image {path}", why=f"{why} (--class NAME gives one)")

    def all_of(self, path: str) -> tuple[str, ...]:
        """Nothing: see `queries.ConditionSource`."""
        return ()

    def note_of(self, path: str) -> str:
        """Nothing: see `queries.ConditionSource`."""
        return ""

    def _from_metadata(self, path: Path) -> str | None:
        metadata, row = self._beside.of(path, "--class NAME")
        names = metadata.values(row, COLUMN)
        if len(names) > 1:
            raise DataError(
                f"cannot use image {path}", why=f"the metadata beside it name {len(names)} classes, not one"
            )
        return names[0] if names else None


def png_class(path: Path) -> str | None:
    """The class that a PNG's text names; None when it names none or is no PNG."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG",)) as image:
                text = image.info.get(PNG_KEY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return composed(str(text)) if text else None
