"""What `guda train`, `unlearn`, `sample`, `score` and `report` do, as methods of one object."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.errors import UsageError
from guda_cli.outfile import check, write
from guda_cli.session import Options, Session

if TYPE_CHECKING:
    from guda_cli.sections import Recipe
    from guda_cli.store import ActionRecord
    from guda_cli.workflow.project.project import Project as StoredProject

AnyPath = str | PathLike[str]


@dataclass(frozen=True)
class Model:
    """One model in the store."""

    what: str
    """Such as `full model` or `unlearn digit-3`."""
    key: str
    """Key of its record: `guda store show KEY`."""
    weights: str
    """Digest of its weights."""
    without: tuple[str, ...]
    """The groups that it has not seen, or has unlearned; of a random set of images none."""
    check: Mapping[str, Any] | None
    """Of an unlearned model: its losses before and after, and whether they are as they should be."""


@dataclass(frozen=True)
class Scores:
    """The scores of images, as `guda score --json` gives them."""

    documents: tuple[Mapping[str, Any], ...]
    """One an image, of the schema `guda.score/1`."""
    rows: tuple[Mapping[str, Any], ...]
    """One an image and group, the highest group first, by the columns of docs/table-formats.md.

    `table()` makes a data frame of them.
    """
    unreadable: tuple[tuple[str, str], ...] = ()
    """(path, reason) of images that could not be read."""
    warnings: tuple[str, ...] = ()

    def table(self) -> Any:
        """The rows as a `pandas.DataFrame`, or where pandas is not installed as the list that they are."""
        try:
            import pandas as pd
        except ImportError:
            return list(self.rows)
        return pd.DataFrame(list(self.rows))

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """The documents."""
        return iter(self.documents)

    def __len__(self) -> int:
        """How many images were scored."""
        return len(self.documents)


def open_project(
    recipe: AnyPath | None = None,
    *,
    store: AnyPath | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Project:
    """A recipe on a store: what everything else starts from.

    `recipe` is a shipped name or a YAML file; None: the store's current recipe, or `digits` in a new one.
    `store` is a folder (None: GUDA_STORE, or .guda); it is made when something is put into it. `settings` are
    entries of the recipe by name: {"train.steps": 500}. `device` is auto, cpu, cuda or mps. With `progress`
    remarks and bars go to stderr. Raises `guda.Error` for a recipe that cannot be.
    """
    sets = tuple(f"{name}={json.dumps(value)}" for name, value in (settings or {}).items())
    options = Options(
        store=Path(store) if store is not None else None,
        recipe=str(recipe) if recipe is not None else None,
        sets=sets,
        device=device,
        quiet=not progress,
    )
    return Project(Session(options))


class Project:
    """One recipe on one store; see `open_project`.

    Every method raises `guda.Error` for what a user can put right: its `message`, `why` and `fix` say how.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._recipe, self._source = session.recipe_and_source(default_digits=True)

    @property
    def recipe(self) -> Recipe:
        """The settings in force."""
        return self._recipe

    @property
    def groups(self) -> dict[str, int]:
        """Number of training images of every group; reads the data."""
        return dict(self._open(create=True).data.counts)

    def _open(self, *, create: bool = False, changed: Mapping[str, Any] | None = None) -> StoredProject:
        from guda_cli.sections import to_dict
        from guda_cli.settings import lookup
        from guda_cli.workflow.project.project import Project as StoredProject

        recipe, session = self._recipe, self._session
        if changed:
            sets = [f"{name}={json.dumps(value)}" for name, value in changed.items()]
            recipe = lookup.override(to_dict(recipe), sets, Path.cwd())
        return StoredProject(recipe, session.open_store(create=create), session.console)

    # -- models ------------------------------------------------------------------------------------

    def train(
        self, *, without: Sequence[str] = (), each_group: bool = False, seeds: Sequence[int] = ()
    ) -> list[Model]:
        """The full model, or retrained ones: without the groups `without`, or each group in turn.

        `seeds` are of retrained models, in place of the recipe's. Models that the store has are not trained
        again; what was interrupted goes on.
        """
        from guda_cli.workflow.models import requested

        project = self._open(create=True)
        project.family.check_start(project.recipe)
        left_out = bool(without or each_group)
        if seeds and not left_out:
            raise UsageError("seeds are of retrained models", fix="train(each_group=True, seeds=[2, 3])")
        removals = requested.to_retrain(project, list(without), each=each_group, null=False)
        self._session.make_current(project.recipe, self._source, list(project.data.counts))
        wanted = removals if left_out else None
        chosen: list[int | None] = [*seeds] or [None]
        return _models(project, requested.train_all(project, self._session.options.device, wanted, chosen))

    def unlearn(self, *groups: str, null: bool = True, **settings: Any) -> list[Model]:
        """Unlearned models without each of `groups` (none named: every group), `a+b` without both.

        `null` adds random sets of images, which z-values need. `settings` are of the recipe's section
        `unlearn`: unlearn("digit-3", operator="esd", steps=50).
        """
        from guda_cli.workflow.models import requested

        project = self._open(changed={f"unlearn.{name}": value for name, value in settings.items()})
        chosen = requested.to_unlearn(project, list(groups), every=not groups, null=null, dry=False)
        return _models(project, requested.unlearn_all(project, self._session.options.device, chosen))

    def sample(
        self, count: int, folder: AnyPath, *, seed: int | None = None, force: bool = False
    ) -> list[Path]:
        """Draw images with the full model into `folder`; their paths.

        DataError where one is a file that guda did not write, unless `force`.
        """
        from guda_cli.workflow.models import drawing

        project = self._open()
        full, spec, out = project.require_full(), project.recipe.sample, Path(folder)
        settings = drawing.Settings(count, spec.sampler, spec.steps, spec.seed if seed is None else seed)
        settings = drawing.conditioned(project, full, settings, classes=None, prompts=None, guidance=None)
        paths = [out / f"{number:05d}.png" for number in range(count)]
        for path in paths:
            check(path, force=force)  # before any work
        found = drawing.sample(project, full, full, settings, self._session.options.device)
        for path, image in zip(paths, drawing.images(project, found, settings), strict=True):
            write(path, image, force=force)
        return paths

    # -- answers -----------------------------------------------------------------------------------

    def score(
        self,
        images: AnyPath | Iterable[AnyPath],
        *,
        method: str = "guda",
        groups: Sequence[str] = (),
        seeds: Sequence[int] = (),
        until: str = "",
        race: str = "",
        top: int = 1,
        **settings: Any,
    ) -> Scores:
        """Scores of image files, or of the images in folders, by one method of `guda score`.

        `groups` names the groups (none: all that have a model), `seeds` the oracle's for method `logo`.
        `until` asks for a surer first group, as `--until`; `race` only which the `top` are, as `--race`,
        with `draws` at most. `settings` are of the recipe's sections `score` (weighting, grid, timesteps,
        draws, seed, most_draws, calibration) and `attribution`. An image that cannot be read is among
        `Scores.unreadable`.
        """
        from guda_cli.sections import ScoreSpec
        from guda_cli.workflow.scoring.counterfactual_run import Settings
        from guda_cli.workflow.scoring.dispatch import make_runs

        of_score = {field.name for field in dataclasses.fields(ScoreSpec)}
        sections = {name: "score" if name in of_score else "attribution" for name in settings}
        changed = {f"{sections[name]}.{name}": value for name, value in settings.items()}
        weighting = changed.pop("score.weighting", None)  # the strata stay those of the recipe's own
        project = self._open(changed=changed)
        name = _one(method)
        others = {"weighting": weighting} if weighting else {}
        if race:
            others |= {"race": race, "race_draws": settings.get("draws", 0)}
        asked = Settings.of(
            project.recipe.score, name, groups=tuple(groups), oracle_seeds=tuple(seeds), until=until, **others
        )
        [run] = make_runs(project, [name], asked, self._session.options.device, places=top)
        return _scored(run, _paths(images, project.console.say))

    def report(
        self, *, method: str | None = None, against: str | None = None, html: AnyPath | None = None
    ) -> dict[str, Any]:
        """Everything scored so far, as `guda report --json`; with `html` a page is written too.

        `against="logo"`: how well each method agrees with retraining. Runs no model.
        """
        project = self._open()
        if against not in (None, "logo"):
            raise UsageError(f"against {against}: the oracle is logo")
        if against:
            return _agreement(project, [method] if method else [], html)
        return _answers(project, method or "guda", html)


def _models(project: StoredProject, records: Iterable[ActionRecord]) -> list[Model]:
    found = []
    for model in map(project.model, records):
        removal = model.removal
        without = removal.groups if removal and not removal.is_null else ()
        found.append(Model(model.what, model.key, model.weights, tuple(without), model.check))
    return found


def _one(method: str) -> str:
    """The name of one method; UsageError for an unknown one and for several."""
    from guda_cli.workflow.scoring.dispatch import parse_methods

    names = parse_methods(method)
    if len(names) > 1:
        raise UsageError(f"'{method}': one method a call")
    return names[0]


def _paths(images: AnyPath | Iterable[AnyPath], say: Callable[[str], None]) -> list[str]:
    from guda_cli.data.queries import expand

    given = [images] if isinstance(images, (str, PathLike)) else list(images)
    return expand([str(path) for path in given], None, say)


def _scored(run: Any, paths: Sequence[str]) -> Scores:
    from guda_cli.attribution.methods import COMPARING
    from guda_cli.report.answers import columns, formats

    documents, rows, unreadable = [], [], []
    shown = columns.pick(columns.View.CSV)
    for block in run.blocks(paths):
        unreadable += block.bad
        for result in block.results:
            documents.append(
                formats.score_document(result, counterfactual=run.method in COMPARING, **run.context())
            )
            lines = columns.ranked(result, method=run.method, weighting=run.weighting)
            rows += [{column.name: column.datum(line) for column in shown} for line in lines]
    return Scores(tuple(documents), tuple(rows), tuple(unreadable), tuple(run.warnings))


def _answers(project: StoredProject, method: str, html: AnyPath | None) -> dict[str, Any]:
    from guda_cli.report.answers import formats, page
    from guda_cli.workflow.reporting.answers_report import of_method

    model = of_method(project, _one(method), project.recipe.score.weighting)
    if html is not None:
        write(Path(html), page.render(model, top=5))
    return formats.to_json(model)


def _agreement(project: StoredProject, methods: Sequence[str], html: AnyPath | None) -> dict[str, Any]:
    from guda_cli.report.agreement import formats, page
    from guda_cli.workflow.reporting import agreement_report

    weightings = agreement_report.check_weightings(project.recipe.score.weighting)
    found = agreement_report.build(project, weightings, methods=methods)
    if html is not None:
        write(Path(html), page.render_html(found))
    return formats.to_json(found)
