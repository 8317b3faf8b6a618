"""How `guda score` prints results as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guda_cli.console import Console

if TYPE_CHECKING:
    from guda_cli.report.model import QueryResult
    from guda_cli.workflow.runs import Run

COUNTERFACTUAL = ("guda", "logo")


class Printer:
    """Prints results as they come: JSON lines, CSV rows, full tables for few images, a line each for many."""

    def __init__(
        self, console: Console, run: Run, top: int, *, many: bool, csv: bool, header: bool = True
    ) -> None:
        self.console, self.run, self.top, self.many, self.csv = console, run, top, many, csv
        self._first = header

    def show(self, result: QueryResult) -> None:
        """Print one image's answer."""
        from guda_cli.report import lines, tables, terminal

        run, counterfactual = self.run, self.run.method in COUNTERFACTUAL
        if self.console.json:
            document = tables.score_document(result, counterfactual=counterfactual, **run.context())
            self.console.data(document)
        elif self.csv:
            rows = tables.csv_lines(result, run.method, run.weighting, header=self._first)
            self.console.out("\n".join(rows))
        else:
            if self._first:
                self.console.out(f"{run.describe()}\n")
            if self.many:
                self.console.out(lines.query_line(result, self.top))
            else:
                self.console.out(
                    terminal.query_table(result, self.top, run.unit, counterfactual=counterfactual)
                )
        self._first = False
