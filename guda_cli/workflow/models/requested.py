"""What a command asks for in models: which removals are meant, and that they can be made, before any work."""

from __future__ import annotations

from collections.abc import Sequence

from guda_cli.families.family import Traits
from guda_cli.store import ActionRecord
from guda_cli.training import distributed
from guda_cli.unlearning import catalog
from guda_cli.workflow.keys import coalitions, removal
from guda_cli.workflow.keys.halves import random_halves
from guda_cli.workflow.keys.operations import TRAIN, UNLEARN
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.models.check_training import check_training
from guda_cli.workflow.models.jobs import FULL, LazyJobs, Task
from guda_cli.workflow.models.making import run_all
from guda_cli.workflow.models.text_problem import styles
from guda_cli.workflow.project import needs
from guda_cli.workflow.project.compute import setup
from guda_cli.workflow.project.plan import TO_DO, WAITS, Planner, Step
from guda_cli.workflow.project.project import Project


def to_unlearn(
    project: Project, groups: Sequence[str], *, every: bool, null: bool, dry: bool
) -> list[Removal]:
    """The removals for `groups` as typed, or for `every` group; with `null`, random sets of like size, too.

    In a `dry` run with unknown data there is nothing yet. Errors as `check_unlearning`; MissingError without
    a full model.
    """
    known = project.known_data()
    if known is None and not dry:
        project.require_full()
    counts = {} if known is None and dry else dict(project.data.counts)
    chosen = removal.of_groups(list(counts) if every else list(groups), counts)
    check_unlearning(project, chosen)
    if null and counts:
        each = project.recipe.unlearn.null_groups
        chosen += removal.nulls(counts, project.data.images, each, match=chosen)
    return chosen


def to_unlearn_together(project: Project, groups: Sequence[str], count: int) -> list[Removal]:
    """Every coalition of a few groups, or those of `count` random permutations of more.

    UsageError for groups that cannot share. The permutations are drawn by `unlearn.seed`.
    """
    players = coalitions.check_players(groups, project.data.counts)
    chosen = [what.titled() for what in coalitions.needed(players, count, project.recipe.unlearn.seed)]
    check_unlearning(project, chosen)
    return chosen


def check_unlearning(project: Project, chosen: Sequence[Removal]) -> None:
    """RecipeError for what the operator cannot do with this model, or without these groups."""
    spec = project.recipe.unlearn
    catalog.check_parts(spec, project.recipe.train.gradient_accumulation * distributed.world())
    needed = project.family.prompts and "styles" in catalog.row(spec.operator).needs
    own = styles(project) if needed and project.known_data() else None
    model = _traits(project)
    for removed in [what.groups for what in chosen] or [()]:
        catalog.check(spec, model, styles=own, removed=removed)


def _traits(project: Project) -> Traits:
    """Of the full model, or while there is none of what the recipe would make."""
    full, family, recipe = project.known_full(), project.family, project.recipe
    if full is not None:
        return project.model(full).traits(recipe)
    shape = (recipe.data.channels, recipe.data.size, recipe.data.size)
    return family.traits(family.configs(recipe, shape)[family.network], family.told(recipe))


def unlearning_plan(project: Project, chosen: Sequence[Removal]) -> list[Step]:
    """The full model and the unlearned ones."""
    planner = Planner(project)
    seeds = project.recipe.unlearn.seeds or (None,)
    return [planner.full(), *(step for seed in seeds for step in planner.models("guda", chosen, seed))]


def halves(project: Project, count: int, seed: int) -> list[Removal]:
    """`count` random halves of the groups, or as many as there are; the user hears if those are fewer.

    UsageError where there are none.
    """
    data = project.data
    overlap = sum(data.counts.values()) != data.images  # every image is in one group at least

    def leaves_some(what: Removal) -> bool:
        return not (overlap and bool(what.members(project.dataset()).all()))

    found = [what.titled() for what in random_halves(list(data.counts), count, seed, leaves_some)]
    if len(found) < count:
        project.console.say(f"{len(data.counts)} groups have {len(found)} different halves: all are taken")
    return found


def to_retrain(project: Project, without: Sequence[str], *, each: bool, null: bool) -> list[Removal]:
    """The removals for `each` group, for those in `without`, and random sets for the `null`."""
    data = project.data
    names = list(data.counts) if each else []
    random = removal.nulls(data.counts, data.images, project.recipe.unlearn.null_groups) if null else []
    return removal.of_groups([*names, *without], data.counts) + random


def training_plan(
    project: Project,
    without: Sequence[str],
    *,
    each: bool,
    null: bool,
    seeds: Sequence[int | None],
    source: str | None,
    subsets: tuple[int, int] | None = None,
) -> list[Step]:
    """What a training would do; of what follows a model that is taken over from `source` nothing is known.

    `subsets` are the number of random halves to be trained without, and the seed they are drawn by.
    """
    planner = Planner(project)
    if source:
        return [planner.dataset(), Step("model", TO_DO, f"to be taken over from {source}")]
    steps = [planner.dataset(), *planner.parts()]
    if not (without or each or null or subsets):
        return [*steps, planner.full()]
    known = planner.data.counts if planner.data else {name.strip(): 1 for name in without}
    removals = (planner.groups() if each else []) + removal.of_groups(without, known)
    removals += planner.nulls() if null else []
    if subsets and planner.data:
        removals += halves(project, *subsets)
    elif subsets:
        steps.append(Step("models without random halves of the groups", WAITS, "for the dataset"))
    return steps + [step for seed in seeds for step in planner.models("logo", removals, seed)]


def train_all(
    project: Project, device: str, removals: Sequence[Removal] | None, seeds: Sequence[int | None]
) -> list[ActionRecord]:
    """Train the full model (`removals` None), or one without each of `removals` and with each seed."""
    jobs = LazyJobs(project, lambda: setup(device))
    jobs.prepare()
    if removals is not None:
        tasks = [Task(TRAIN, what, seed) for seed in seeds for what in removals]
        return run_all(jobs, tasks, project.known_full(), device, verb="train")
    if project.recipe.model.registered:
        return [project.require_full()]
    full = project.ensure(jobs.job(FULL))
    if not distributed.rank():  # one process is enough
        check_training(project, full, jobs)
    return [full]


def unlearn_all(project: Project, device: str, chosen: Sequence[Removal]) -> list[ActionRecord]:
    """Unlearn each of `chosen` from the full model, with a bar for their number."""
    full = project.require_full()
    needs.check(project.recipe)
    jobs = LazyJobs(project, lambda: setup(device))
    if not project.recipe.model.registered:
        jobs.job(FULL)  # so that a damaged full model can be rebuilt
    seeds = project.recipe.unlearn.seeds or (None,)
    tasks = [Task(UNLEARN, what, seed) for seed in seeds for what in chosen]
    return run_all(jobs, tasks, full, device, verb="unlearn")
