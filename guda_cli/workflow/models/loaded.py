"""Networks from records: one network in memory, weights swapped in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from guda_cli.diffusion import networks
from guda_cli.diffusion.batch_size import BatchSize
from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.networks import Weights
from guda_cli.errors import DataError
from guda_cli.store import ActionRecord
from guda_cli.unlearning import subsets
from guda_cli.workflow.models.recast import PLAIN, Recast
from guda_cli.workflow.models.spaces import Space
from guda_cli.workflow.project.compute import Compute, Form
from guda_cli.workflow.project.project import Project

MEMORY = 2 << 30  # bytes for the activations of a forward on a CPU
MAPS = 40


class Models:
    """The full model, and any model derived from it, in the same network object."""

    def __init__(self, project: Project, full: ActionRecord, compute: Compute, space: Space) -> None:
        self.project, self.full, self.compute, self.space = project, full, compute, space
        self.stored = project.model(full)
        self.family = self.stored.family
        self.classes = project.classes(full)
        self.schedule = self.stored.schedule
        self.base = project.weights(full, what="the full model")
        self._swapped: set[str] = set()
        self._recast: Recast | None = None

    @cached_property
    def network(self) -> torch.nn.Module:
        """The one network whose weights are swapped."""
        return self.frozen()

    @cached_property
    def _owners(self) -> networks.Owners:
        return networks.owners(self.network)

    @property
    def learned_variance(self) -> bool:
        """Whether the network also predicts a variance, which scoring does not use."""
        return self.family.learned_variance(self.stored.network)

    @cached_property
    def rows(self) -> BatchSize:
        """Rows of one forward: first `Compute.batch_size`, or fewer where their activations would not fit.

        An estimate: MAPS feature maps of the first block's width a row.
        """
        _, height, width = self.space.shape
        channels = self.family.width(self.stored.network)
        room = self._room // (4 * MAPS * height * width * channels)
        return BatchSize(max(1, min(self.compute.batch_size, room)), self.project.console.say)

    @property
    def batch_size(self) -> int:
        """Rows of one forward, as far as is known now."""
        return self.rows.rows

    @property
    def _room(self) -> int:
        """Bytes for the activations of a forward."""
        if self.compute.device.type != "cuda":
            return MEMORY
        return max(MEMORY, int(torch.cuda.mem_get_info(self.compute.device)[0]) // 2)

    def untrained(self, seed: int) -> torch.nn.Module:
        """A network of the same shape that knows nothing, its weights drawn from `seed`."""
        return networks.moved(self.family.build(self.stored.network, seed), self.compute.device)

    def fresh(self) -> torch.nn.Module:
        """Another network of the same shape with the full model's weights."""
        own = {name: value.to(self.compute.device, copy=True) for name, value in self.base.items()}
        return self.family.sharing(self.stored.network, own).train().requires_grad_(True)

    def frozen(self) -> torch.nn.Module:
        """A network with the full model's weights, in the memory of `_placed`; never to be trained."""
        return networks.moved(self.family.sharing(self.stored.network, self._placed), self.compute.device)

    @cached_property
    def _placed(self) -> Weights:
        """`base` on the device, once for all networks that share it; on the CPU it is `base` itself."""
        return {name: value.to(self.compute.device) for name, value in self.base.items()}

    def denoiser(self, network: torch.nn.Module) -> Network:
        """The adapter of a network of this shape."""
        return self.space.denoiser(network, self.schedule)

    def conditions(self, names: Sequence[str | None]) -> torch.Tensor | None:
        """What `predict` takes for these class names or prompts; None for unconditional models."""
        return self.space.conditions(names, self.classes)

    def changes(self, record: ActionRecord) -> Mapping[str, Tensor]:
        """The weights of a trained, registered or unlearned model that differ from the full model's.

        Those of low rank are made as they are asked for, one by one.
        """
        if record.key == self.full.key:
            return {}
        model = self.project.model(record)
        loaded = self.project.weights(record, what=model.what)
        return subsets.changes(self._placed, loaded) if model.unlearned else loaded

    def unlearned(self, kept: Weights) -> Network:
        """The network with what an unlearning `kept` in place; valid until the next call."""
        return self.swapped(subsets.changes(self._placed, kept))

    def use(self, record: ActionRecord) -> Network:
        """The network in evaluation mode with `record`'s weights; valid until the next call."""
        return self.swapped(self.changes(record))

    def swapped(self, changes: Mapping[str, Tensor]) -> Network:
        """The one network with `changes` in place of the full model's weights; valid until the next call."""
        self._check_known(changes)
        back = {name: self._placed[name] for name in self._swapped - changes.keys()}
        networks.place(self._owners, back)
        for name, value in changes.items():  # each takes the place of another before the next is made
            networks.place(self._owners, {name: value.to(self.compute.device)})
            self.base.release(name)
        self._swapped = set(changes)
        return self.denoiser(self.network)

    def recast(self, record: ActionRecord, form: Form) -> Network:
        """As `use`, the network in another form (`recast.py`); valid until the next call."""
        if form.dtype in PLAIN and not form.compiled:
            return self.use(record)
        changes = self.changes(record)
        self._check_known(changes)
        if self._recast is None or self._recast.form != form:
            self._recast = None  # its memory is free before that of the next is taken
            self._recast = Recast(self, form)
        return self._recast.swapped(changes)

    def _check_known(self, changes: Mapping[str, Tensor]) -> None:
        unknown = sorted(changes.keys() - self.base.keys())
        if unknown:
            raise DataError(f"the model has weights that the full model lacks, such as {unknown[0]}")
