"""What a report says in sentences; the HTML page and the terminal use the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from guda_cli.phrases import plural
from guda_cli.report.answers.content import (
    HIGHER,
    NO_GROUP,
    SIGN,
    Change,
    Check,
    CostRow,
    Maps,
    QueryResult,
    RaceResult,
    Regeneration,
    ReportModel,
    Training,
)
from guda_cli.report.pieces.text import flatten, number, printable, significant

FORWARD_NOTE = (
    "A forward-equivalent is one pass of one image through the network; a backward pass counts as two. "
    "It measures work independently of the machine."
)
UNLIKE = "unlike the training data"
_LIMITS = (
    "This is an estimate of what the model would be without a group. It does not prove that anything was "
    "deleted, nor that an image was copied.",
    "Errors and intervals are Monte-Carlo errors of the paired difference (over noise draws and timesteps); "
    "with several seeds of unlearning also of what lies between them. Retraining with another seed can say "
    "otherwise: only where some groups were retrained does a report foretell what.",
    "The ranking depends on the weighting over timesteps named above.",
)
_OTHER_LIMITS = (
    "No model without a group was made: these scores do not say what the model would be without it. How "
    "far the method agrees with retraining, guda report --against logo says.",
    "Scores of different methods cannot be compared with each other, only their rankings.",
)
_NOT_LEGAL = "This is not legal advice."


def limits(report: ReportModel) -> tuple[str, ...]:
    """What the scores do not say."""
    return (*(_LIMITS if report.counterfactual else _OTHER_LIMITS), _NOT_LEGAL)


def sign(counterfactual: bool) -> str:
    """What the sign or size of a score means."""
    return SIGN if counterfactual else HIGHER


def score_name(counterfactual: bool) -> str:
    """The head of a column of scores."""
    return "delta-ELBO" if counterfactual else "score"


def caption(query: QueryResult) -> str:
    """The query's name, and the class or the prompts it was scored with where there are some."""
    told = condition(query)
    return f"{query.name} ({told})" if told else query.name


def condition(query: QueryResult) -> str:
    """The class or the prompts that the image was scored with, or nothing."""
    if query.condition is not None:
        return f"class {query.condition}"
    return "; ".join(f"\u201c{text}\u201d" if text else "the empty prompt" for text in query.prompts)


def told(query: QueryResult) -> str:
    """The class or the prompts it was scored with, or nothing."""
    return caption(query)[len(query.name) :].strip().removeprefix("(").removesuffix(")")


Z_NOTE = (
    "z: deviations from what the group scores on images that are not its own, less what all groups score on "
    "this image."
)
STAR_NOTE = "* stands out: at most 5 % of images score as high with a group that is not theirs."
OPEN_MARK = "?"
RACE_NOTE = f"{OPEN_MARK} ahead, but not told apart from the groups behind."


def legend(counterfactual: bool, judged: bool, starred: bool = False, raced: bool = False) -> list[str]:
    """How to read the scores; of z, stars and races where there are some."""
    notes = ((Z_NOTE, judged), (STAR_NOTE, judged and starred), (RACE_NOTE, raced))
    return [sign(counterfactual), *(note for note, there in notes if there)]


def query_answer(query: QueryResult) -> str:
    """The answer for one query, as a sentence."""
    if query.race is not None:
        return raced(query, query.race)
    if query.answer is None:
        if not query.scores:
            return "No scores."
        return f"Ranked first: {printable(query.scores[0].group)} (nothing to compare with)."
    if query.unlike:
        return f"{UNLIKE.capitalize()}, so no group is named."
    if not query.answer:
        return f"{NO_GROUP.capitalize()}."
    names = listed([printable(g) for g in query.answer])
    return f"{'Stands' if len(query.answer) == 1 else 'Stand'} out: {names}."


def raced(query: QueryResult, race: RaceResult) -> str:
    """Which groups are the first, as far as a race told."""
    names = listed([printable(score.group) for score in query.scores[: race.places]])
    sure, cost = f"{100 * race.level:.4g} %", f"{race.forwards:,} forwards"
    if not race.decided:
        return f"Ahead: {names}, but not told apart at {sure} with {cost}."
    return f"{'First' if race.places == 1 else 'The first'}: {names} (told at {sure} with {cost})."


def listed(names: Sequence[str]) -> str:
    """Names joined as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def headline(report: ReportModel) -> str:
    """The report's answer in one or two sentences."""
    queries = report.queries
    if not queries:
        return "No image has been scored yet."
    judged = [q for q in queries if q.answer is not None]
    if len(queries) == 1:
        return f"{printable(queries[0].name)}: {query_answer(queries[0])}"
    if not judged:
        tops = Counter(q.scores[0].group for q in queries if q.scores)
        return (
            f"{len(queries):,} images were ranked. Nothing was calibrated, so nothing says whether a group "
            f"stands out. Most often ranked first: {_counted(tops)}."
        )
    text = _verdicts(judged)
    counts = Counter(group for q in judged for group in q.answer or ())
    if counts:
        text += f" Most often named: {_counted(counts)}."
    if len(judged) < len(queries):
        text += f" {len(queries) - len(judged):,} more had nothing to be compared with."
    strange = sum(bool(q.unlike) for q in judged)
    if strange:
        text += f" {strange:,} {'is' if strange == 1 else 'are'} {UNLIKE}."
    return text


def _verdicts(judged: Sequence[QueryResult]) -> str:
    named = sum(bool(q.answer) for q in judged)
    if not named:
        return f"{NO_GROUP.capitalize()} for any of the {len(judged):,} images."
    if named == len(judged):
        return f"At least one group stands out for each of the {len(judged):,} images."
    return (
        f"For {named:,} of {len(judged):,} images at least one group stands out; "
        f"for the other {len(judged) - named:,}, {NO_GROUP}."
    )


def _counted(counts: Counter[str], most: int = 3) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{printable(name)} ({n:,}×)" for name, n in ordered[:most]]
    more = len(ordered) - most
    return listed(shown + ([f"{more} more"] if more > 0 else []))


def question(report: ReportModel) -> str:
    """What was asked."""
    images = "1 image" if len(report.queries) == 1 else f"{len(report.queries):,} images"
    it = "it" if len(report.queries) == 1 else "each of them"
    how = report.sentence or f"method {printable(report.method)}"
    need = f"does the model need to explain {it}" if report.counterfactual else f"is {it} owed to"
    return (
        f"Asked of {images}: which of the {len(report.groups):,} groups of the training data {need}? "
        f"To find out, {how}."
    )


def method_facts(report: ReportModel) -> list[tuple[str, str]]:
    """How the scores were computed, as names and values."""
    steps = plural(report.timesteps, "timestep", "timesteps")
    grid = f"{report.grid} ({steps})" if report.timesteps else report.grid
    facts = [
        ("Method", report.method),
        ("Weighting", report.weighting),
        ("Unit", report.weighting_unit),
        ("Timestep grid", grid),
        ("Noise draws", f"{report.draws}" if report.draws else ""),
        ("Seed", f"{report.seed}"),
        ("Order", report.ranked),
        ("Full model", model_verdict(report)),
        ("Groups unlearned", group_verdicts(report.checks)),
        ("Recipe", report.recipe_name),
        ("Date", report.created),
    ]
    return [(name, printable(value)) for name, value in facts if value]


def percent(share: float, places: int = 0) -> str:
    """A share as a person writes it."""
    return f"{100 * share:.{places}f} %"


def null_line(report: ReportModel) -> str:
    """What verdicts compare with, and how often they are wrong on this model."""
    null = report.null
    if null is None:
        why = "nothing was calibrated" if report.counterfactual else "not for this method"
        return f"No verdicts: {why}."
    if "wrong_group" not in null:  # of a report made elsewhere
        return "Verdicts compare with: " + "; ".join(f"{k}: {v}" for k, v in flatten(null)) + "."
    wrong, own = percent(null["wrong_group"], 1), percent(null["own_group"])
    level, unlike = percent(null["level"]), percent(null["unlike"], 1)
    return (
        f"A group stands out where its score is one that at most {level} of images have of any group that is "
        f"not theirs. Calibrated on {printable(null['description'])}; of those, each judged by the others, "
        f"{wrong} had a wrong group named, {own} their own, and {unlike} were called {UNLIKE}. z counts "
        "deviations of what the group scores on others' images, less what all groups score on this one."
    )


def retraining_line(report: ReportModel) -> str:
    """How the intervals for retraining were found, or nothing."""
    known = report.retraining
    if known is None:
        return ""
    return (
        f"What one more retraining would say is foretold from {known['images']} images under the models "
        f"retrained without {known['groups']} groups: {known['slope']:.2f} times the score and "
        f"{significant(known['shift'], sign=True)}, give or take what such models differ by. Each group in "
        "turn was left out to find how far off that is."
    )


def training_line(training: Training) -> str:
    """What the training images beside the answers are."""
    return (
        f"Training images: of each named group (the first {training.groups} at most) the {training.each} "
        "that are nearest to the image by their pixels. They show what the group looks like; nearness has no "
        "part in the scores."
    )


def maps_line(maps: Maps) -> str:
    """How to read the maps of the first images."""
    images = "first image" if len(maps.of) == 1 else f"first {len(maps.of):,} images"
    return (
        f"Maps of the {images}: red where the model explains the image worse without the group, blue where "
        "better. The maps of one image share a colour scale."
    )


def foretold_line(query: QueryResult) -> str:
    """What one more retraining would say of the image's first group, or nothing."""
    first = query.scores[0] if query.scores else None
    if first is None or first.retrained_low is None or first.retrained_high is None:
        return ""
    low, high = first.retrained_low, first.retrained_high
    interval = f"{significant(low, sign=True)} … {significant(high, sign=True)}"
    return f"One more retraining would say of {printable(first.group)}: {interval}."


def elbo_line(query: QueryResult) -> str:
    """The image's own ELBO under the full model, or nothing."""
    if query.elbo_nats is None:
        return ""
    places = 0 if abs(query.elbo_nats) >= 100 else 2
    error = f" ± {number(query.elbo_se, places)}" if query.elbo_se is not None else ""
    bits = f" ({number(query.bits_per_dim, 3)} bits/dim)" if query.bits_per_dim is not None else ""
    return f"ELBO of the full model {number(query.elbo_nats, places)}{error} nats{bits}"


VERDICTS = ("failed", "doubtful", "passed")
"""Of checks, the worst first."""


def model_verdict(report: ReportModel) -> str:
    """The check of the full model, with its number; nothing where there is none."""
    found = report.training_check
    return f"check {found['verdict']}: {found['why']}" if found else ""


def group_verdicts(checks: Sequence[Check]) -> str:
    """`8 checks passed, 1 doubtful, 1 failed`."""
    counts = [(sum(c.verdict == verdict for c in checks), verdict) for verdict in reversed(VERDICTS)]
    shown = [f"{count} {verdict}" for count, verdict in counts if count]
    return "checks: " + ", ".join(shown) if shown else ""


def checks_line(checks: Sequence[Check]) -> str:
    """How many models without a group failed their check, and how many are doubtful."""
    failed, doubtful = (sum(c.verdict == verdict for c in checks) for verdict in VERDICTS[:2])
    if not failed and not doubtful:
        return f"All {len(checks)} models passed."
    parts = [f"{failed} of {len(checks)} checks failed: do not rely on the scores of these groups."]
    parts += [f"{doubtful} of {len(checks)} models are doubtful, for the reasons given."]
    return " ".join(part for part, n in zip(parts, (failed, doubtful), strict=True) if n)


def told_apart(check: Check) -> str:
    """How well the group's training images are told from held-out ones, before and after; or nothing."""
    found = check.membership
    if found is None:
        return ""
    return f"{number(found['before'], 2)} → {number(found['after'], 2)} ± {number(found['after_se'], 2)}"


MEMBERSHIP_NOTE = (
    "Told apart: how well the loss tells the group's training images from images of the group that were held "
    "out (area under the curve; 0.5: not at all, as it would be had the model never seen the group)."
)


def cost_totals(costs: Sequence[CostRow]) -> list[tuple[str, int, int, float | None, float | None]]:
    """Per step, then in all: (name, run, cached, seconds, forward-equivalents).

    A sum leaves out the costs that are unknown and is None if all of them are.
    """
    steps = list(dict.fromkeys(row.step for row in costs))
    parts = [(step, [row for row in costs if row.step == step]) for step in steps]
    parts += [
        ("run", [row for row in costs if row.status == "run"]),
        ("reused from the store", [row for row in costs if row.status == "cached"]),
        ("all steps", list(costs)),
    ]
    return [(name, *_total(rows)) for name, rows in parts]


def _total(rows: Sequence[CostRow]) -> tuple[int, int, float | None, float | None]:
    run = sum(row.status == "run" for row in rows)
    seconds = [row.seconds for row in rows if row.seconds is not None]
    forwards = [row.forwards for row in rows if row.forwards is not None]
    return run, len(rows) - run, sum(seconds) if seconds else None, sum(forwards) if forwards else None


def looks_line(report: ReportModel) -> str:
    """How it is known what an image looks like, and how surely; or why it is not said. "" if unknown."""
    found = report.looks
    if found is None:
        return ""
    rate = f"{percent(found.accuracy)} of {found.images:,} training images"
    if found.shown:
        return (
            f"What an image looks like: the group of its nearest training images by pixels, right for {rate}."
        )
    return (
        "What the images look like is not said: the nearest training images by pixels are of the right "
        f"group for only {rate}."
    )


def regeneration_line(found: Regeneration) -> str:
    """What was drawn and compared, in one sentence."""
    groups = "the highest group" if found.top == 1 else f"the {found.top} highest groups"
    other = "single other groups" if found.top == 1 else f"{found.top} other groups"
    made = "retrained" if found.by == "logo" else "unlearned"
    images = f"{len(found.rows):,} image{'' if len(found.rows) == 1 else 's'}"
    return (
        f"{images} drawn again from the same noise by models {made} without {groups}, and without {other}: "
        "how far the pictures are from the full model's, and how much further without the highest (95 % "
        "interval over the images)."
    )


def regeneration_cells(change: Change) -> tuple[str, str, str, str, str]:
    """Measure, change without the named groups, without others, the difference, share of the images."""
    low, high = significant(change.low), significant(change.high)
    within = "" if change.low is None else f" ({low} to {high})"
    return (
        f"{change.measure} ({change.unit})",
        significant(change.top),
        significant(change.others),
        significant(change.difference) + within,
        percent(change.share),
    )


REGENERATION_HEADS = ("without the highest", "without others", "difference", "more in")
