"""Every method of `guda score`: one row each, and the rows that installed packages add.

A new method is a file of `attribution.rivals` with an engine (see `rivals.engine`) and a row here; in another
package the same, and an entry point of the group `guda.methods` that has the method's name and leads to the
row. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from guda_cli.errors import UsageError, unknown
from guda_cli.sections import AttributionSpec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "guda.methods"
COUNTERFACTUAL, IMAGES, GROUPS = "counterfactual", "images", "groups"
"""Kinds: models without a group are compared; training images are scored; groups are, by their names."""


@dataclass(frozen=True)
class Method:
    """What the program knows of a method before it runs it."""

    name: str
    kind: str
    """COUNTERFACTUAL, IMAGES or GROUPS."""
    help: str
    """What the help of `guda score --method` calls it."""
    sentence: str
    """How it finds out, as the end of a report's sentence."""
    doc: tuple[str, str]
    """Its score of group k for query q, and what it needs: cells of the table in docs/methods.md."""
    engine: str = ""
    """`module:Class` of an `Engine`, or a `GroupEngine` where groups are scored; "" for COUNTERFACTUAL."""
    reads: tuple[str, ...] = ()
    """The settings of the recipe's section `attribution` that its scores depend on: they enter their key."""
    at_least: Mapping[str, float] = field(default_factory=dict)
    """Smallest value of such settings, and `above` their open lower bound; null is always allowed."""
    above: Mapping[str, float] = field(default_factory=dict)
    of_model: bool = True
    """Whether what it prepares depends on the full model."""


_SUBSET: dict[str, float] = {"per_group": 1, "timesteps": 1, "draws": 1}
_INFLUENCE: dict[str, Any] = {
    "kind": IMAGES,
    "reads": ("per_group", "timesteps", "draws", "projection", "ridge", "seed"),
    "at_least": {**_SUBSET, "projection": 1},
    "above": {"ridge": 0},
}
METHODS = (
    Method(
        "guda",
        COUNTERFACTUAL,
        "guda (unlearned models)",
        "each group was unlearned from the full model",
        (
            "ELBO(q; theta) - ELBO(q; theta without k), the model *unlearned* (arXiv 2601.22651)",
            "`guda unlearn`",
        ),
    ),
    Method(
        "logo",
        COUNTERFACTUAL,
        "logo (retrained ones)",
        "the model was trained again without each group",
        (
            "the same with the model *retrained* without k; the mean over its seeds",
            "`guda train --each-group --seeds A,B`",
        ),
    ),
    Method(
        "similarity",
        IMAGES,
        "similarity",
        "the training images were compared with the query by their embeddings",
        (
            "cosine of embeddings with the group's images",
            "nothing; `--encoder` a CLIP or DINO folder or hub id",
        ),
        "guda_cli.attribution.rivals.similarity:Similarity",
        reads=("encoder",),
        of_model=False,
    ),
    Method(
        "trak",
        help="trak",
        sentence="gradients of the denoising loss were compared (TRAK)",
        doc=(
            "phi_q^T (Phi^T Phi + r I)^-1 phi_i, phi the projected gradient of the denoising loss "
            "(Park et al. 2023)",
            "gradients of a subset",
        ),
        engine="guda_cli.attribution.rivals.influence:Trak",
        **_INFLUENCE,
    ),
    Method(
        "d-trak",
        help="d-trak",
        sentence="gradients of the network's squared output were compared (D-TRAK)",
        doc=("the same with the gradient of mean(eps_theta^2) (Zheng et al. 2024)", "the same"),
        engine="guda_cli.attribution.rivals.influence:DTrak",
        **_INFLUENCE,
    ),
    Method(
        "das",
        help="das",
        sentence="gradients of the network's mean output were compared (DAS)",
        doc=(
            "the same with unit gradients of mean(eps_theta), times the image's relative residual norm "
            "(Lin et al. 2025)",
            "the same",
        ),
        engine="guda_cli.attribution.rivals.influence:Das",
        **_INFLUENCE,
    ),
    Method(
        "unlearn-query",
        IMAGES,
        "unlearn-query",
        "the query was unlearned in one step and the training images' losses compared",
        (
            "rise of image i's loss after one Fisher-preconditioned ascent step on q (Wang et al. 2024)",
            "a Fisher diagonal",
        ),
        "guda_cli.attribution.rivals.unlearn_query:UnlearnQuery",
        reads=("per_group", "timesteps", "draws", "seed", "query_rise", "damping"),
        at_least=_SUBSET,
        above={"query_rise": 0, "damping": 0},
    ),
    Method(
        "mucs",
        IMAGES,
        "mucs",
        "the query was unlearned by bounded ascent and the training images' losses compared",
        (
            "relative rise of image i's loss after bounded ascent on q with a retain term "
            "(Serra et al. 2026)",
            "nothing",
        ),
        "guda_cli.attribution.rivals.mucs:Mucs",
        reads=("per_group", "timesteps", "draws", "seed", "mucs_steps", "mucs_lr"),
        at_least={**_SUBSET, "mucs_steps": 1},
        above={"mucs_lr": 0},
    ),
    Method(
        "random",
        GROUPS,
        "random",
        "scores were drawn at random: a floor for comparison, no answer",
        ("chance", "nothing"),
        "guda_cli.attribution.rivals.random_scores:RandomScores",
        reads=("seed",),
        of_model=False,
    ),
)
"""The program's own, in the order of every listing."""
COMPARING = tuple(row.name for row in METHODS if row.kind == COUNTERFACTUAL)
"""Names of the methods that compare models."""


def names() -> list[str]:
    """All names that `find` knows, the program's own first; no package is imported for it."""
    own = [row.name for row in METHODS]
    return own + [name for name in _entries() if name not in own]


def find(name: str) -> Method:
    """The row of a method; UsageError for an unknown name, and for a package's row that cannot be used."""
    for row in METHODS:
        if row.name == name:
            return row
    if name not in _entries():
        raise UsageError(unknown("method", name, names()), why="it is one of " + ", ".join(names()))
    return _foreign(name)


def help_words() -> str:
    """The program's own methods as a sentence."""
    *first, last = (row.help for row in METHODS)
    return f"{', '.join(first)} or {last}"


def bounds(kind: str) -> dict[str, float]:
    """`at_least` or `above` of all settings of the program's own methods, by setting."""
    return {name: bound for row in METHODS for name, bound in getattr(row, kind).items()}


def engine(row: Method) -> Any:
    """The class that a method's row names: of `Engine`, or of `GroupEngine` where it scores groups.

    UsageError for a package's that cannot be imported or is none; TypeError for such a row of the program's.
    """
    from guda_cli.attribution.rivals.engine import Engine, GroupEngine

    wanted = GroupEngine if row.kind == GROUPS else Engine
    module, _, name = row.engine.partition(":")
    if not (module and name):
        raise _unusable(row.name, f"its row names no engine ({row.engine!r})")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as err:
        if row in METHODS:
            raise
        raise _unusable(row.name, f"{row.engine}: {type(err).__name__}: {err}") from err
    if not (isinstance(found, type) and issubclass(found, wanted)):
        raise _unusable(row.name, f"{row.engine} is no {wanted.__name__}")
    return found


@cache
def _entries() -> Mapping[str, EntryPoint]:
    """Entry points of other packages by name; of several with one name the first."""
    from importlib.metadata import entry_points  # here, as it takes longer than all else in this module

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, entry)
    return found


@cache
def _foreign(name: str) -> Method:
    """The row that another package's entry point leads to."""
    try:
        row = _entries()[name].load()
    except Exception as err:
        raise _unusable(name, f"{type(err).__name__}: {err}") from err
    if not isinstance(row, Method):
        raise _unusable(name, f"its entry point leads to a {type(row).__name__}, not to a row of methods")
    if row.name != name:
        raise _unusable(name, f"its row is named '{row.name}'")
    if row.kind not in (IMAGES, GROUPS):
        raise _unusable(name, f"it is of kind '{row.kind}': other packages add {IMAGES} and {GROUPS}")
    strange = sorted(set(row.reads) - {f.name for f in dataclasses.fields(AttributionSpec)})
    if strange:
        raise _unusable(name, f"it reads settings that a recipe does not have: {', '.join(strange)}")
    return row


def _unusable(name: str, why: str) -> Exception:
    entry = _entries().get(name)
    if entry is None or any(row.name == name for row in METHODS):
        return TypeError(f"the method '{name}' has no engine: {why}")
    package = entry.dist.name if entry.dist else entry.value
    return UsageError(
        f"the method '{name}' of the package {package} cannot be used",
        why=why,
        fix=f"pip uninstall {package}",
    )
