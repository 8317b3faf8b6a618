"""A stored model: what its record and configuration say, taken apart here and nowhere else. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from guda_cli.data.classes import Classes
from guda_cli.errors import DataError, RecipeError
from guda_cli.families.family import Family, Traits
from guda_cli.families.known import family_of_config
from guda_cli.sections import Recipe
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import REGISTER, TRAIN, UNLEARN, model_blobs
from guda_cli.workflow.keys.removal import Removal

if TYPE_CHECKING:
    from guda_cli.diffusion.schedule import Schedule


@dataclass(frozen=True, eq=False)
class StoredModel:
    """A trained, registered or unlearned model; its configuration and schedule are read when asked for."""

    record: ActionRecord
    read: Callable[[str], bytes]
    """The blob that an output, or else an input, of the record names."""

    # -- by its record -----------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """The record's."""
        return self.record.key

    @property
    def weights(self) -> str:
        """Digest of its weights, which says which model it is."""
        return self.record.outputs["weights"]

    @property
    def what(self) -> str:
        """What it is, in words."""
        return str(self.record.provenance.get("what", self.record.operation))

    @property
    def trained(self) -> bool:
        """Whether it was trained here, and so has its initialisation from a seed of the recipe."""
        return self.record.operation == TRAIN

    @property
    def registered(self) -> bool:
        """Whether it was taken over from files."""
        return self.record.operation == REGISTER

    @property
    def unlearned(self) -> bool:
        """Whether it is kept as what differs from the full model."""
        return self.record.operation == UNLEARN

    @property
    def removal(self) -> Removal | None:
        """What it has never seen, or has unlearned; None for a full model."""
        return Removal.of(self.record.params.get("without"))

    @property
    def seed(self) -> int | None:
        """Of a trained or an unlearned model."""
        sections = [name for name in ("train", "unlearn") if name in self.record.params]
        return int(self.record.params[sections[0]]["seed"]) if sections else None

    @property
    def check(self) -> dict[str, Any] | None:
        """What the check of an unlearning found: see `judgement.CheckResult.to_dict`."""
        from guda_cli.unlearning.judgement import completed

        found: dict[str, Any] | None = self.record.provenance.get("check")
        return None if found is None else completed(found)

    @property
    def blobs(self) -> dict[str, str]:
        """Digests of weights, configuration and schedule of the full model that it is or comes from."""
        return model_blobs(self.record)

    # -- by its configuration ----------------------------------------------------------------------

    @cached_property
    def config(self) -> dict[str, Any]:
        """Configurations of network and scheduler, classes and parts, as they were stored."""
        found: dict[str, Any] = json.loads(self.read("config"))
        return found

    @cached_property
    def family(self) -> Family:
        """The kind of model it is."""
        return family_of_config(self.config)

    @property
    def network(self) -> Mapping[str, Any]:
        """The network's own configuration."""
        found: Mapping[str, Any] = self.config[self.family.network]
        return found

    @property
    def parts(self) -> Mapping[str, str]:
        """Digests of what stands around the network."""
        found: Mapping[str, str] = self.config.get("parts", {})
        return found

    @cached_property
    def schedule(self) -> Schedule:
        """The forward process that it was trained with."""
        from guda_cli.diffusion.schedule import BETAS, LEVELS, Schedule

        stored = BETAS if BETAS in self.blobs else LEVELS
        return Schedule.from_bytes(stored, self.read(stored), self.prediction)

    @property
    def prediction(self) -> str:
        """What its network predicts."""
        return self.family.prediction(self.config["scheduler"])

    def traits(self, recipe: Recipe) -> Traits:
        """What it can be asked for; its conditions are those of `recipe`."""
        return self.family.traits(self.network, self.family.told(recipe))

    def classes(self, conditional: bool, groups: Iterable[str]) -> Classes | None:
        """Class names and null class, None for an unconditional model.

        RecipeError when the recipe (`conditional`) says otherwise, DataError when the classes are not the
        data's `groups`: both can happen to a registered model only, whose recipe or data were changed later.
        """
        if conditional != ("classes" in self.config):
            is_, says = ("class-conditional", "false") if not conditional else ("unconditional", "true")
            raise RecipeError(
                f"the full model is {is_}, but model.class_conditional is {says}",
                fix=f"--set model.class_conditional={'false' if conditional else 'true'}",
            )
        if not conditional:
            return None
        names, known = tuple(self.config["classes"]), tuple(sorted(groups))
        if names != known:
            raise DataError(
                "the classes of the registered model are not the groups of the data",
                why=f"it was registered with {', '.join(names[:8])}; the data have {', '.join(known[:8])}",
                fix="guda train --from DIR",
            )
        return Classes(names, self.family.null_class(self.network, len(names)))
