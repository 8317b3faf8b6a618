"""Every method of `guda score`: one row each, and the rows that installed packages add. Imports no torch.

A new method is a file of `attribution.rivals` with an engine (see `rivals.engine`) and a row here; in another
package the same, and an entry point of the group `guda.methods` that has the method's name and leads to the
row.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from guda_cli import plugins
from guda_cli.errors import RecipeError, UsageError, unknown
from guda_cli.sections import AT_LEAST_1, POSITIVE, AttributionSpec, Bounds, Setting

GROUP = "guda.methods"
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
    settings: tuple[Setting, ...] = ()
    """What its scores depend on, of the recipe's section `attribution`: it enters their key."""
    of_model: bool = True
    """Whether what it prepares depends on the full model."""
    mirrors: bool = False
    """Whether it looks at both orientations of training images, where training showed both."""
    revision: int = 1
    """Raised when its numbers change: they are then computed anew, and no other method's."""

    def __post_init__(self) -> None:
        if self.kind not in (COUNTERFACTUAL, IMAGES, GROUPS):
            raise ValueError(f"the method '{self.name}' is of no kind '{self.kind}'")

    @property
    def reads(self) -> dict[str, Setting]:
        """Its settings by name."""
        return {setting.name: setting for setting in self.settings}


_SEED = Setting("seed")
_SUBSET = tuple(Setting(name, bounds=AT_LEAST_1) for name in ("per_group", "timesteps", "draws"))
_INFLUENCE: dict[str, Any] = {
    "kind": IMAGES,
    "mirrors": True,
    "settings": (
        *_SUBSET, Setting("projection", bounds=AT_LEAST_1), Setting("ridge", bounds=POSITIVE), _SEED,
    ),
}  # fmt: skip
_DAS = (Setting("das_squared", later=True), Setting("das_profile", later=True))
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
        "subsets",
        COUNTERFACTUAL,
        "subsets (retrained on halves)",
        "the model was trained again without random halves of the groups",
        (
            "no ranking of groups: the same for random halves of them, by which sums of scores are judged",
            "`guda train --subsets M`",
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
        settings=(Setting("encoder"),),
        of_model=False,
    ),
    Method(
        "nda",
        IMAGES,
        "nda",
        "patches of the noised image were answered with training images' as the best denoiser would",
        (
            "weight of image i's patches in the optimal denoiser's answer to the patches of q, noised "
            "(Zhao et al. 2025)",
            "nothing, no network is run",
        ),
        "guda_cli.attribution.rivals.nda:Nda",
        settings=(
            *_SUBSET, _SEED, Setting("nda_patch", bounds=AT_LEAST_1),
            Setting("nda_t_max", bounds=Bounds(above=0.0, at_most=1.0)),
        ),
        mirrors=True,
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
        **{**_INFLUENCE, "settings": (*_INFLUENCE["settings"], *_DAS)},
    ),
    Method(
        "ekfac",
        IMAGES,
        "ekfac",
        "gradients of the denoising loss were compared through its curvature (EK-FAC influence)",
        (
            "grad L(q)^T (G + damping)^-1 grad L(i), G the loss's Gauss-Newton matrix by EK-FAC "
            "(Mlodozeniec et al. 2025)",
            "gradients of a subset, eigenbases of every layer",
        ),
        "guda_cli.attribution.rivals.ekfac:Ekfac",
        settings=(
            *_SUBSET, Setting("projection", bounds=AT_LEAST_1), _SEED,
            Setting("ekfac_damping", bounds=POSITIVE),
        ),
        mirrors=True,
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
        settings=(
            *_SUBSET, _SEED, Setting("query_rise", bounds=POSITIVE), Setting("damping", bounds=POSITIVE),
            Setting("damping_by_layer", later=True),
        ),
        mirrors=True,
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
        settings=(
            *_SUBSET, _SEED, Setting("mucs_steps", bounds=AT_LEAST_1), Setting("mucs_lr", bounds=POSITIVE),
        ),
        mirrors=True,
        revision=2,  # 1 bounded the mean of a batch, so that single rows went far above the null
    ),
    Method(
        "random",
        GROUPS,
        "random",
        "scores were drawn at random: a floor for comparison, no answer",
        ("chance", "nothing"),
        "guda_cli.attribution.rivals.random_scores:RandomScores",
        settings=(_SEED,),
        of_model=False,
    ),
)  # fmt: skip
"""The program's own, in the order of every listing."""
COMPARING = tuple(row.name for row in METHODS if row.kind == COUNTERFACTUAL)
"""Names of the methods that compare models."""
_OWN = {row.name: row for row in METHODS}


def names() -> list[str]:
    """All methods, the program's own first; no package is imported for it."""
    return plugins.names(GROUP, _OWN)


def find(name: str) -> Method:
    """The method of that name; UsageError naming the nearest for an unknown one.

    RecipeError for a package's that cannot be used.
    """
    found = _OWN.get(name) or plugins.find(GROUP, name, Method)
    if found is None:
        raise UsageError(unknown("method", name, names()), fix="--method guda")
    if found.kind == COUNTERFACTUAL and name not in _OWN:
        raise plugins.unusable(GROUP, name, f"packages add methods of the kinds {IMAGES} and {GROUPS}")
    return found


def help_text() -> str:
    """The program's own methods for the help of an option."""
    *first, last = (row.help for row in METHODS)
    return f"{', '.join(first)} or {last}"


def own_settings() -> dict[str, Setting]:
    """Settings of installed packages' methods that are no fields of `AttributionSpec`, by name.

    A package that cannot be used has none; who names its method hears why.
    """
    fields = {f.name for f in dataclasses.fields(AttributionSpec)}
    found: dict[str, Setting] = {}
    for name in plugins.names(GROUP, ()):
        with suppress(RecipeError):
            found |= {key: setting for key, setting in find(name).reads.items() if key not in fields}
    return found


def check_settings(spec: AttributionSpec) -> None:
    """RecipeError for a value that no method takes; packages are looked at only for settings of their own."""
    own = own_settings() if spec.options else {}
    for name, setting in ({s.name: s for row in METHODS for s in row.settings} | own).items():
        setting.bounds.check(f"attribution.{name}", _given(spec, name))


def _given(spec: AttributionSpec, name: str) -> Any:
    """What the recipe says; None where it says nothing."""
    return dict(spec.options)[name] if name in dict(spec.options) else getattr(spec, name, None)


def values(row: Method, spec: AttributionSpec) -> dict[str, Any]:
    """The settings in force of a method, by name, as they enter its key.

    Those that came later are left out where they are the default.
    """
    usual = AttributionSpec()
    given = {
        name: _given(spec, name)
        for name, setting in row.reads.items()
        if not (setting.later and _given(spec, name) == _given(usual, name))
    }
    return {name: row.reads[name].usual if value is None else value for name, value in given.items()}


def engine(row: Method) -> Any:
    """The class that a method's row names: of `Engine`, or of `GroupEngine` where it scores groups.

    RecipeError for a package's that cannot be imported or is none.
    """
    from guda_cli.attribution.rivals.engine import Engine, GroupEngine

    return plugins.load(GROUP, row.name, row.engine, GroupEngine if row.kind == GROUPS else Engine)
