"""How `guda score` prints results as they come, and writes maps."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guda_cli.attribution import methods
from guda_cli.console import Console, width_of
from guda_cli.errors import DataError
from guda_cli.outfile import MAP, PICTURE, check, write

if TYPE_CHECKING:
    from guda_cli.data.queries import Query
    from guda_cli.report.answers.content import QueryResult
    from guda_cli.report.answers.image_rows import ImageRows
    from guda_cli.workflow.scoring.run import Run

ELSEWHERE = "--map FOLDER"


class Printer:
    """Prints results as they come: JSON lines, CSV rows, full tables for few images, a row each for many.

    `names` are the images that may come.
    """

    def __init__(
        self,
        console: Console,
        run: Run,
        names: Sequence[str],
        top: int,
        *,
        many: bool,
        csv: bool,
        header: bool,
    ) -> None:
        self.console, self.run, self.names, self.top = console, run, names, top
        self.many, self.csv = many, csv
        self._first = header
        self._rows: ImageRows | None = None
        self._counterfactual = run.method in methods.COMPARING

    def begin(self, results: Sequence[QueryResult]) -> None:
        """Print what stands above all answers, once some of them are known."""
        if not self._first or self.console.json or self.csv or not results:
            return
        from guda_cli.report.answers import words
        from guda_cli.report.answers.image_rows import ImageRows

        self._first, judged = False, any(result.answer is not None for result in results)
        raced = self.many and any(result.race is not None for result in results)
        for line in (self.run.describe(), *words.legend(self._counterfactual, judged, self.many, raced)):
            self.console.prose(line)
        self.console.out("")
        if self.many:
            groups = sorted({entry.group for result in results for entry in result.scores})
            width = width_of(sys.stdout)
            self._rows = ImageRows(self.names, groups, results, width, self.top, self._counterfactual)
            for head in self._rows.heads():
                self.console.out(head)

    def show(self, result: QueryResult) -> None:
        """Print one image's answer."""
        from guda_cli.report.answers import formats, terminal

        run = self.run
        if self.console.json:
            document = formats.score_document(result, counterfactual=self._counterfactual, **run.context())
            self.console.data(document)
        elif self.csv:
            rows = formats.csv_lines(result, run.method, run.weighting, header=self._first)
            self.console.file("\n".join(rows))
            self._first = False
        elif self._rows is not None:
            self.console.out(self._rows.row(result))
        else:
            width = width_of(sys.stdout)
            shown = terminal.query_table(
                result, self.top, run.unit, width, counterfactual=self._counterfactual
            )
            self.console.out(shown)


class Mapper:
    """Writes maps of the counterfactual methods, where asked, each into a file that is settled beforehand.

    `ending` goes into the files' names.
    """

    def __init__(
        self, run: Run, path: Path | None, paths: Sequence[str], top: int, ending: str, force: bool
    ) -> None:
        self.run, self.top, self.force = run, top, force
        self.files: dict[str, Path] = {}
        if path is None or run.method not in methods.COMPARING:
            return
        if path.suffix:
            self.files = dict.fromkeys(paths, path)
            return
        taken: set[Path] = set()
        for name in paths:
            if name not in self.files:
                self.files[name] = _map_in(path, Path(name).stem + ending, taken)

    def check(self) -> None:
        """DataError where a map would take the place of anything but a map, or (always) of an image to be
        scored."""
        inputs = {os.path.realpath(name) for name in self.files}
        for path in self.files.values():
            if os.path.realpath(path) in inputs:
                raise DataError(f"{path} is there already", why="it is an image to be scored", fix=ELSEWHERE)
            check(path, fix=ELSEWHERE, force=self.force, kind=PICTURE)

    def draw(self, query: Query, result: QueryResult) -> None:
        """The map of one image, if any are wanted."""
        from guda_cli.workflow.scoring.counterfactual_run import ScoreRun

        if query.name not in self.files:
            return
        assert isinstance(self.run, ScoreRun)
        path = self.files[query.name]
        write(path, self.run.map_of(query, result, self.top), fix=ELSEWHERE, force=self.force)
        self.run.project.console.say(f"map: {path}")


def _map_in(folder: Path, stem: str, taken: set[Path]) -> Path:
    """Where the map of an image goes in `folder`; images alike in name get a number."""
    path, number = folder / f"{stem}{MAP}", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}-{number}{MAP}"
    taken.add(path)
    return path
