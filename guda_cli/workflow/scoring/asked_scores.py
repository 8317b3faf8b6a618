"""Which of the scorings in the store a report is of: those with the settings asked for, else the recipe's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guda_cli.data.queries import Query
from guda_cli.diffusion import grid as grids
from guda_cli.phrases import plural
from guda_cli.store import ActionRecord
from guda_cli.workflow.project.counterfactual_kinds import GUDA
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring import remembered
from guda_cli.workflow.scoring.counterfactuals import Counterfactuals


@dataclass(frozen=True)
class Asked:
    """What was typed of the settings of scores; "" and None where nothing was.

    `images` are the digests of pixels of the images asked for, all where None.
    """

    grid: str = ""
    timesteps: int | None = None
    draws: int | None = None
    seed: int | None = None
    images: Collection[str] | None = None

    @property
    def options(self) -> str:
        """As it is typed, after a space."""
        names = ("grid", "timesteps", "draws", "seed")
        given = [(name, getattr(self, name)) for name in names]
        return "".join(f" --{name} {value}" for name, value in given if value not in (None, ""))


@dataclass(frozen=True, eq=False)
class Scorings:
    """Scorings that can be shown together, oldest first, their grid and how they were computed.

    `notes` say what is left out, and how to see it.
    """

    records: Sequence[ActionRecord]
    queries: Sequence[Query] = ()
    """Each image that is asked for once, under the name it was last scored by, in order of name."""
    grid: Mapping[str, Any] = field(default_factory=dict)
    compute: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def choose(project: Project, found: Counterfactuals, asked: Asked) -> Scorings:
    """The scorings by the models `found` that are as `asked`; without records where there are none.

    What was not typed is the recipe's, or where nothing was scored so, what was used last. On one grid, all
    computed alike; scorings of more draws hold those of fewer.
    """
    records = [
        record
        for record in project.store.records("score")
        if record.params["method"] == found.method and record.inputs["full"] == found.full.outputs["weights"]
    ]
    typed = [record for record in records if _fits(record.params["grid"], asked)]
    spec = project.recipe.score
    usual = Asked(
        asked.grid or spec.grid,
        asked.timesteps or spec.timesteps,
        asked.draws or spec.draws,
        spec.seed if asked.seed is None else asked.seed,
    )
    as_usual = [record for record in typed if _fits(record.params["grid"], usual, more_draws=True)]
    chosen = as_usual or typed
    if not chosen:
        return Scorings([])
    last = chosen[-1].params
    grid = grids.with_draws(last["grid"], usual.draws) if as_usual and usual.draws else last["grid"]
    alike = [r for r in chosen if _holds(r.params["grid"], grid) and r.params["compute"] == last["compute"]]
    notes = []
    if not as_usual and not asked.options:
        notes.append(f"nothing was scored with the recipe's settings: shown are scores of{_words(grid)}")
    known, keys = remembered.images(project, alike), {record.key for record in alike}
    others = [record for record in records if record.key not in keys]
    of_method = "" if found.method == GUDA.method else f" --method {found.method}"
    notes += _left_out(project, others, known.keys(), asked, of_method)
    return Scorings(
        alike, remembered.by_name(known.values(), asked.images), grid, last["compute"], tuple(notes)
    )


def _fits(grid: Mapping[str, Any], asked: Asked, *, more_draws: bool = False) -> bool:
    """Whether a grid has all that is typed; with `more_draws` it may also hold what is."""
    draws = asked.draws is None or grid["draws"] == asked.draws
    if more_draws and asked.draws is not None:
        draws = _holds(grid, grids.with_draws(grid, asked.draws))
    known = _timesteps(grid)
    return (
        draws
        and grids.typed(grid, asked.grid)
        and (asked.timesteps is None or known is None or known == asked.timesteps)
        and (asked.seed is None or grid["seed"] == asked.seed)
    )


def _holds(grid: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    """Whether the tables of `grid` are those of `part`, and perhaps more."""
    layers = grids.layers(grid)
    return all(layer in layers for layer in grids.layers(part))


def _timesteps(grid: Mapping[str, Any]) -> int | None:
    """How many strata a grid has; None where it is not made of so many."""
    if "edges" in grid:
        return int(sum(grid.get("repeats", [1] * (len(grid["edges"]) - 1))))
    known: int | None = grid.get("timesteps")
    return known


def _words(grid: Mapping[str, Any]) -> str:
    steps = _timesteps(grid)
    return Asked(grids.name_of(grid), steps, int(grid["draws"]), int(grid["seed"])).options


def _left_out(
    project: Project,
    others: Sequence[ActionRecord],
    shown: Collection[str],
    asked: Asked,
    of_method: str,
) -> list[str]:
    """How many images were only scored otherwise, each once, by what would show them.

    `others` are the scorings that are not shown, `shown` the digests of the images that are.
    """
    last: dict[str, str] = {}
    for record in others:
        options = of_method + _words(record.params["grid"])
        wanted = remembered.by_name(remembered.recall(project, record), asked.images)
        last |= {query.digest: options for query in wanted}
    counts = Counter(options for digest, options in last.items() if digest not in shown)
    return [
        f"{plural(count, 'image was', 'images were')} scored with other settings: guda report{options}"
        for options, count in counts.items()
    ]
