"""The operators: one row each, which is all that is said of them outside their own modules. No torch.

A row is read by `make`, the checks, the recipe's rules, `guda tune`, the help of `--operator` and the table
in docs/methods.md. Other packages add rows by the entry point group `guda.operators`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guda_cli import plugins
from guda_cli.errors import RecipeError, unknown
from guda_cli.families.family import PROMPT, Traits
from guda_cli.sections import AT_LEAST_0, AT_LEAST_1, POSITIVE, SHARE, Setting, UnlearnSpec, subset_of

GROUP = "guda.operators"
COMMON = ("steps", "batch_size", "lr", "retain", "seed")
GUARD_DRAWS = 2  # (t, noise) an image of the group for guard
GUARD_RETAIN = 256  # images whose mean gradient stands for the rest's


@dataclass(frozen=True)
class OperatorRow:
    """One operator."""

    name: str
    where: str
    """Its class, "module:Class", made with (problem, full=, parameters=); see `operators.base.Operator`."""
    summary: str
    """What becomes of the group's entries: its row in docs/methods.md (Markdown)."""
    settings: tuple[Setting, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    """What it cannot do without, and why: `full` (the frozen full model), `prompts`, `styles` (descriptors of
    other groups), `null` (a null condition), `batch` (a whole batch in one process)."""
    backwards: int = 1
    """Backward passes an entry."""
    asks: float = 0.0
    """Forwards of the full model an entry of the group, beside those of `retain: distill`."""
    forgets: bool = True
    """Whether the group's entries have a loss of their own, which guard can weigh."""
    dosed: bool = True
    """Whether `forget_share` counts: not where the group is left out, or its natural share weighed."""
    tried: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values that guda tune tries, by setting."""
    also: Mapping[str, Any] = field(default_factory=dict)
    """What enters its keys beside its settings: named when its numbers change, so that they are new ones."""

    @property
    def reads(self) -> dict[str, Setting]:
        """Its settings by name."""
        return {setting.name: setting for setting in self.settings}


_STEPS, _RATES, _WINDOW = (20, 50, 100, 200), (2e-4, 5e-4, 1e-3, 2e-3), (0.0, 0.2, 0.4, 0.6)
_BATCHES = (32, 128)  # at one price small batches are more steps: better on Fashion-MNIST
_TRIED: Mapping[str, Sequence[Any]] = {"steps": _STEPS, "lr": _RATES}
_ANCHOR_TRIED: Mapping[str, Sequence[Any]] = {
    **_TRIED,
    "t_min": _WINDOW,
    "forget_weight": (0.3, 1.0, 3.0),
    "retain": ("denoise", "distill"),
}
_OF_GROUP = "it redirects the group's prompts to others, and this model reads none"
_DESCRIPTORS = Setting("anchor_descriptors", bounds=AT_LEAST_1)
_AWSS = (Setting("beta", bounds=AT_LEAST_0), Setting("eta", bounds=SHARE), _DESCRIPTORS)
_ENCODER = Setting("anchor_encoder")
_UNIT = {"unit_prototypes": True}  # means of descriptors, which earlier versions left shorter


def _weight(usual: float) -> Setting:
    return Setting("forget_weight", usual, AT_LEAST_0)


def _window(usual: float = 0.0) -> Setting:
    return Setting("t_min", usual)


ROWS = (
    OperatorRow(
        "retrack", "guda_cli.unlearning.operators.retrack:Retrack",
        "redirected to what a retain-only denoiser would say: a softmax over the K nearest other images "
        "(Shi et al. 2025); `density_ratio` for the full objective",
        (
            _weight(0.3), Setting("neighbours", bounds=AT_LEAST_1), Setting("cap", bounds=POSITIVE),
            _window(0.2), Setting("density_ratio", later=True),
        ),
        tried={
            **_TRIED, "t_min": _WINDOW, "forget_weight": (0.1, 0.3, 1.0), "neighbours": (5, 10, 50),
            "batch_size": _BATCHES,
        },
    ),
    OperatorRow(
        "retrack-zero", "guda_cli.unlearning.operators.retrack:RetrackZero",
        "redirected to no noise at all, which the published code of GUDA-U comes to at image size, where its "
        "weights vanish (Murata et al. 2026): for comparison with published figures",
        (_weight(0.3), _window()),
        tried={**_TRIED, "t_min": _WINDOW, "forget_weight": (0.1, 0.3, 1.0)},
    ),
    OperatorRow(
        "esd", "guda_cli.unlearning.operators.esd:Esd",
        "guided away from the group's class or prompts (Gandikota et al. 2023); needs a conditional model",
        (_weight(1.0), Setting("guidance", bounds=AT_LEAST_0), _window()),
        needs={
            "full": "its target is the full model's answer",
            "null": "it steers away from what the group's prompt or class changes against none",
        },
        asks=2.0,
        tried={**_TRIED, "guidance": (1.0, 3.0)},
    ),
    OperatorRow(
        "erasediff", "guda_cli.unlearning.operators.erasediff:EraseDiff",
        "pushed to uniform noise where that does not conflict with the rest's gradient (Wu et al. 2024)",
        (Setting("erase_rate", bounds=AT_LEAST_0), _window()),
        needs={"batch": "erasediff weighs two gradients of the whole batch against each other"},
        backwards=2,
        tried={**_TRIED, "t_min": _WINDOW, "erase_rate": (0.03, 0.1, 0.3)},
    ),
    OperatorRow(
        "siss", "guda_cli.unlearning.operators.siss:Siss",
        "importance-sampled mixture of a retained and a forgotten image (Alberti et al. 2025)",
        (
            _weight(1.0), Setting("mixture", bounds=SHARE), Setting("superfactor", bounds=AT_LEAST_0),
            _window(),
        ),
        needs={"batch": "siss weighs two gradients of the whole batch against each other"},
        backwards=2,
        dosed=False,
        tried={**_TRIED, "t_min": _WINDOW, "superfactor": (0.03, 0.1, 0.3)},
    ),
    OperatorRow(
        "neggrad", "guda_cli.unlearning.operators.neggrad:NegGrad",
        "gradient ascent, bounded by the loss of predicting the mean",
        (_weight(0.1), _window()),
        tried={**_TRIED, "t_min": _WINDOW, "forget_weight": (0.03, 0.1, 0.3)},
    ),
    OperatorRow(
        "finetune", "guda_cli.unlearning.operators.finetune:Finetune",
        "left out",
        forgets=False,
        dosed=False,
        tried={**_TRIED, "batch_size": _BATCHES},
    ),
    OperatorRow(
        "anchor:awss", "guda_cli.unlearning.operators.anchor:OtherStyle",
        "text-to-image: answered as the full model answers the same object in another group's style, "
        "drawn by how near its descriptors are in text (`beta`), a share `eta` evenly; "
        "`anchor_descriptors` of them are filled in (Murata et al. 2026)",
        (_weight(1.0), _window(), *_AWSS, _ENCODER),
        needs={"full": "its target is the full model's answer", "prompts": _OF_GROUP, "styles": _OF_GROUP},
        asks=1.0,
        tried={**_ANCHOR_TRIED, "beta": (2.0, 8.0)},
        also=_UNIT,
    ),
    OperatorRow(
        "anchor:uniform", "guda_cli.unlearning.operators.anchor:OtherStyle",
        "the same, every other style alike",
        (_weight(1.0), _window(), _DESCRIPTORS),
        needs={"full": "its target is the full model's answer", "prompts": _OF_GROUP, "styles": _OF_GROUP},
        asks=1.0,
        tried=_ANCHOR_TRIED,
    ),
    OperatorRow(
        "anchor:style-removed", "guda_cli.unlearning.operators.anchor:StyleRemoved",
        "answered as the full model answers the object alone",
        (_weight(1.0), _window()),
        needs={"full": "its target is the full model's answer", "prompts": _OF_GROUP},
        asks=1.0,
        tried=_ANCHOR_TRIED,
    ),
    OperatorRow(
        "anchor:matched", "guda_cli.unlearning.operators.anchor:Matched",
        "answered as the full model answers another group's image of the same content, noised alike; as "
        "`anchor:awss` where there is none",
        (_weight(1.0), _window(), *_AWSS, _ENCODER),
        needs={"full": "its target is the full model's answer", "prompts": _OF_GROUP},
        asks=1.0,
        tried=_ANCHOR_TRIED,
        also=_UNIT,
    ),
)  # fmt: skip


# Settings that any operator may read and that came later, with what leaves older keys as they are.
DEFAULTS: dict[str, Any] = {
    "params": "full",
    "guard": False,
    "density_ratio": False,
    "t_max": 1.0,
    "forget_share": None,
}


_OWN = {each.name: each for each in ROWS}


def names() -> list[str]:
    """All operators, this program's first."""
    return plugins.names(GROUP, _OWN)


def row(name: str) -> OperatorRow:
    """The operator of that name; RecipeError naming the nearest for an unknown one."""
    found = _OWN.get(name) or plugins.find(GROUP, name, OperatorRow)
    if found is None:
        raise RecipeError(unknown("operator", name, names()), fix="--operator retrack")
    return found


def help_text() -> str:
    """The program's own operators for the help of an option: those for any model, then for prompts."""
    plain = [each.name for each in ROWS if "prompts" not in each.needs]
    text = [each.name for each in ROWS if "prompts" in each.needs]
    return f"{_either(plain)}; for text-to-image models also {_either(text)}"


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]])


def own_settings(name: str) -> dict[str, Setting]:
    """Settings of the operator that are no fields of `UnlearnSpec`: an installed package's own."""
    fields = {f.name for f in dataclasses.fields(UnlearnSpec)}
    return {key: setting for key, setting in row(name).reads.items() if key not in fields}


def check_settings(spec: UnlearnSpec) -> None:
    """RecipeError for an unknown operator, and for a value that no operator takes."""
    row(spec.operator)
    rows = (*ROWS, row(spec.operator))
    for setting in {s.name: s for each in rows for s in each.settings}.values():
        setting.bounds.check(f"unlearn.{setting.name}", _given(spec, setting.name))


def switched(values: dict[str, Any], operator: str) -> dict[str, Any]:
    """The `unlearn` section `values` for another `operator`: without what was set for the one before.

    That is what each operator has a usual value of its own for, and a package's own settings.
    """
    fields = {f.name for f in dataclasses.fields(UnlearnSpec)}
    special = {s.name for each in ROWS for s in each.settings if s.usual is not None}
    kept = {k: v for k, v in values.items() if k in fields and k not in special}
    return {**kept, "operator": operator}


def _given(spec: UnlearnSpec, name: str) -> Any:
    """What the recipe says; None where it says nothing."""
    return dict(spec.options)[name] if name in dict(spec.options) else getattr(spec, name, None)


def value(spec: UnlearnSpec, name: str) -> Any:
    """A setting in force: the recipe's, or where that is None the operator's own."""
    given, usual = _given(spec, name), row(spec.operator).reads[name].usual
    if given is None:
        return usual
    return float(given) if isinstance(usual, float) else given


def settings(spec: UnlearnSpec) -> dict[str, Any]:
    """The settings that decide what `spec.operator` computes, as they enter an action's key."""
    found = {name: getattr(spec, name) for name in COMMON}
    found |= {name: value(spec, name) for name, s in row(spec.operator).reads.items() if not s.later}
    return {"operator": spec.operator, **found, **_later(spec), **row(spec.operator).also}


def _later(spec: UnlearnSpec) -> dict[str, Any]:
    """The settings of DEFAULTS that the operator reads and that are not the default."""
    mine = row(spec.operator)
    read = ["params"]
    if "t_min" in mine.reads:
        read += ["guard", "t_max"]
    if mine.dosed:
        read.append("forget_share")
    read += [name for name, setting in mine.reads.items() if setting.later]
    found = {name: getattr(spec, name) for name in read if getattr(spec, name) != DEFAULTS[name]}
    return found | ({"guard_temperature": spec.guard_temperature} if "guard" in found else {})


def tuning_space(name: str) -> dict[str, Sequence[Any]]:
    """Values that guda tune tries for an operator, by recipe entry; RecipeError where its row names none."""
    tried = row(name).tried
    if not tried:
        raise RecipeError(
            f"nothing says which settings of {name} to try", fix="--space unlearn.lr=1e-4,3e-4,1e-3"
        )
    return {f"unlearn.{key}": values for key, values in tried.items()}


def asks_full(spec: UnlearnSpec) -> bool:
    """Whether an unlearning needs the frozen full model beside the one that is trained."""
    return spec.retain == "distill" or "full" in row(spec.operator).needs


def check(
    spec: UnlearnSpec,
    model: Traits,
    *,
    styles: Mapping[str, tuple[str, ...]] | None = None,
    removed: Collection[str] = (),
) -> None:
    """RecipeError for what this operator, or this choice of parameters, cannot do with the full model.

    `styles` are the style descriptors of all groups, where they are known, and `removed` the groups that go.
    """
    mine = row(spec.operator)
    _check_conditions(mine, model)
    if "styles" in mine.needs and styles is not None:
        retained_styles(styles, removed)
    if spec.guard and not mine.forgets:
        raise RecipeError(
            f"guard has nothing to weight with {mine.name}",
            why="that operator leaves the group out and forgets nothing on purpose",
            fix="guda unlearn --all --operator retrack --guard",
        )
    if "t_min" in mine.reads and value(spec, "t_min") >= spec.t_max:
        raise RecipeError(
            f"unlearn.t_max = {spec.t_max:g} leaves no timestep",
            why=f"{spec.operator} forgets from t_min = {value(spec, 't_min'):g} on",
            fix="--set unlearn.t_min=0",
        )
    check_params(spec.params, model)


def check_parts(spec: UnlearnSpec, parts: int) -> None:
    """RecipeError where a step's loss is no sum over entries that `parts`, or processes, could share."""
    why = _whole_batch(spec)
    if parts == 1 or why is None:
        return
    raise RecipeError(
        "this unlearning does not go with train.gradient_accumulation or with several processes",
        why=why,
        fix="--operator retrack --set unlearn.density_ratio=false",
    )


def divisible(spec: UnlearnSpec) -> bool:
    """Whether a step's loss is a sum over entries, so that a batch may be computed in parts."""
    return _whole_batch(spec) is None


def _whole_batch(spec: UnlearnSpec) -> str | None:
    """Why a batch has to be computed at once; None where it may be divided."""
    if spec.density_ratio and "density_ratio" in row(spec.operator).reads:
        return "unlearn.density_ratio is relative to the whole batch"
    return row(spec.operator).needs.get("batch")


def _check_conditions(mine: OperatorRow, model: Traits) -> None:
    text = model.told == PROMPT
    if "prompts" in mine.needs and not text:
        raise RecipeError(
            f"{mine.name} needs a text-conditional full model",
            why=f"{mine.needs['prompts']}; recipes with model.text_conditional: true train such models",
            fix="guda unlearn --all --operator retrack",
        )
    if "null" in mine.needs and not model.null:
        dropout = "train.prompt_dropout" if text else "train.class_dropout"
        wanted = "" if text else "model.class_conditional: true with "
        reason = f"it is trained with {dropout} 0" if model.told else "this model is unconditional"
        raise RecipeError(
            f"{mine.name} needs a text-conditional full model, or a class-conditional one with a null class",
            why=f"{mine.needs['null']}; {reason} ({wanted}{dropout} above 0 trains one)",
            fix="guda unlearn --all --operator retrack",
        )


def retained_styles(styles: Mapping[str, tuple[str, ...]], removed: Collection[str]) -> tuple[str, ...]:
    """The groups that can lend their style when `removed` are gone; RecipeError when there is none.

    `styles` are each group's descriptors.
    """
    found = tuple(name for name, words in styles.items() if words and name not in removed)
    if not any(styles.values()):
        raise RecipeError(
            "no group has style descriptors, of which anchor prompts are made",
            why="text.pattern finds a style part in no prompt, and neither text.descriptors (JSON: group -> "
            "descriptors) nor data.descriptors (a column of the metadata) names any",
            fix="--operator anchor:style-removed",
        )
    if not found:
        raise RecipeError(
            "no style is left to redirect to",
            why=f"without {', '.join(sorted(removed))} there is no other group with style descriptors",
            fix="--operator anchor:style-removed",
        )
    return found


def check_params(params: str, model: Traits, where: str = "unlearn.params") -> None:
    """RecipeError where `params`, the value of `where`, are none that this model has."""
    kind = subset_of(params, where)[0]
    if kind == "lora" and importlib.util.find_spec("peft") is None:
        raise RecipeError(f"{where}: {params} needs the package peft", fix="pip install 'guda[lora]'")
    if kind == "attn" and not model.attention:
        raise RecipeError(
            f"{where}: attn needs a model with attention",
            why=f"this one has {', '.join(sorted(set(model.blocks)))} and no attention in the middle; one "
            "with AttnDownBlock2D and AttnUpBlock2D or model.add_attention has some",
            fix=f"--set {where}=full",
        )
    if kind == "cross-attn-kv" and not model.cross_attention:
        raise RecipeError(
            f"{where}: cross-attn-kv needs a model with cross-attention",
            why="this one reads its text among the image's own tokens, in attention over both"
            if model.told == PROMPT
            else "this one has none: cross-attention reads a text, and a UNet2DModel takes no text",
            fix=f"--set {where}={'attn' if model.attention else 'full'}",
        )


def dose(spec: UnlearnSpec) -> int:
    """How many entries of a batch `forget_share` is, one at least and not all; 0 where it does not count."""
    if spec.forget_share is None or not row(spec.operator).dosed:
        return 0
    return min(max(1, round(spec.forget_share * spec.batch_size)), spec.batch_size - 1)


def forwards(spec: UnlearnSpec, forget: int = 0, images: int = 1) -> float:
    """Forward-equivalents of one run (a backward counts 2) that forgets `forget` of `images` images.

    Operators with two gradients go back twice; some ask the full model about the group's share of the
    entries; guard takes one gradient for each of its draws.
    """
    mine = row(spec.operator)
    share = forget / images
    given = dose(spec) / spec.batch_size
    share = given + (1.0 - given) * share
    entry = 1.0 + 2.0 * mine.backwards
    if spec.retain == "distill":
        entry += 1.0
    if mine.asks:
        entry += mine.asks * share
    once = 3.0 * (GUARD_DRAWS * forget + min(GUARD_RETAIN, images - forget)) if spec.guard else 0.0
    return float(spec.steps * spec.batch_size) * entry + once
