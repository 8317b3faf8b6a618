"""How `guda score` prints results as they come, and writes maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guda_cli.attribution import methods
from guda_cli.console import Console
from guda_cli.outfile import MAP, check, write

if TYPE_CHECKING:
    from guda_cli.data.queries import Query
    from guda_cli.report.answers.content import QueryResult
    from guda_cli.workflow.scoring.run import Run

ELSEWHERE = "--map FOLDER"


class Printer:
    """Prints results as they come: JSON lines, CSV rows, full tables for few images, a line each for many."""

    def __init__(
        self, console: Console, run: Run, top: int, *, many: bool, csv: bool, header: bool = True
    ) -> None:
        self.console, self.run, self.top, self.many, self.csv = console, run, top, many, csv
        self._first = header

    def show(self, result: QueryResult) -> None:
        """Print one image's answer."""

        from guda_cli.report.answers import formats, terminal

        run, counterfactual = self.run, self.run.method in methods.COMPARING
        if self.console.json:
            document = formats.score_document(result, counterfactual=counterfactual, **run.context())
            self.console.data(document)
        elif self.csv:
            rows = formats.csv_lines(result, run.method, run.weighting, header=self._first)
            self.console.out("\n".join(rows))
        else:
            if self._first:
                self.console.out(f"{run.describe()}\n")
            if self.many:
                self.console.out(terminal.query_line(result, self.top))
            else:
                self.console.out(
                    terminal.query_table(result, self.top, run.unit, counterfactual=counterfactual)
                )
        self._first = False


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
        """DataError where a map would take the place of a file that guda did not write."""
        for path in self.files.values():
            check(path, fix=ELSEWHERE, force=self.force)

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
