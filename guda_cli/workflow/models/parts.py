"""What stands around a network, as stored actions: its parts, the latents of the data, the prompts' rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from torch import Tensor

from guda_cli.checkpoints.components import PartsRead
from guda_cli.data.styles import check_captions
from guda_cli.diffusion.prompt_bank import PromptBank, Rows
from guda_cli.diffusion.weight_file import PackedWeights
from guda_cli.errors import MissingError
from guda_cli.families.family import Codec, Family, Maker, Materials, PromptEncoder
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import part_keys
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.models.pixel_tensor import tensor_of
from guda_cli.workflow.models.resume import run_hooks
from guda_cli.workflow.project.compute import Compute
from guda_cli.workflow.project.project import Job, Made, Project

SHOWN = 3  # prompts of which it is said what was cut


class Parts:
    """The parts of one recipe, by the names that its family gives them."""

    def __init__(self, project: Project, compute: Compute) -> None:
        self.project, self.compute = project, compute
        self.family: Family = project.family
        self._cut: set[str] = set()

    # -- making them -------------------------------------------------------------------------------

    def ensure(self) -> dict[str, ActionRecord]:
        """What made each part: a pipeline, or trainings where none brings them and the store has none."""
        recipe, project = self.project.recipe, self.project
        source = recipe.model.registered or recipe.model.base
        if source or not self.family.makers:
            return dict.fromkeys(self.family.parts, self._taken(source))
        if not project.has_parts(project.data):
            check_captions(project.dataset())
        made: dict[str, ActionRecord] = {}
        for maker in self.family.makers:
            digests = {name: record.outputs[name] for name, record in made.items()}
            action = part_keys.made(recipe, project.data, maker, digests)
            record = project.ensure(self._job(action, maker, dict(made)))
            made |= dict.fromkeys(maker.outputs, record)
        return made

    def _taken(self, source: str | None) -> ActionRecord:
        found = self.project.store.lookup(source) if source else None
        if found is None or set(self.family.parts) - found.outputs.keys():
            raise MissingError("the pipeline of this recipe is not in the store", fix="guda train --from DIR")
        return found

    def _job(self, action: Action, maker: Maker, made: Mapping[str, ActionRecord]) -> Job:
        return Job(action, lambda: self._make(action, maker, made))

    def _make(self, action: Action, maker: Maker, made: Mapping[str, ActionRecord]) -> Made:
        project, data = self.project, self.project.dataset()
        materials = Materials(
            project.recipe,
            tensor_of(data.images),
            [text or "" for text in data.prompts],
            self._read(maker.needs, made),
            self.compute.device,
        )
        with run_hooks(project, action) as (resume, hooks):
            return Made.of(maker.make(materials, resume, hooks))

    # -- using them --------------------------------------------------------------------------------

    @cached_property
    def _made(self) -> Mapping[str, ActionRecord]:
        return self.ensure()

    def digests(self) -> dict[str, str]:
        """Digest of each part; makes them first."""
        return {name: record.outputs[name] for name, record in self._made.items()}

    def _read(self, names: Sequence[str], made: Mapping[str, ActionRecord]) -> PartsRead:
        """The parts themselves; a damaged one that was trained here is made again."""
        project, weighty = self.project, self.family.weighty_parts
        return {
            name: (project.weights if name in weighty else project.read)(made[name], name) for name in names
        }

    @cached_property
    def codec(self) -> Codec:
        """Between images and latents."""
        return self.family.codec(self._read(self.family.codec_parts, self._made), self.compute.device)

    @cached_property
    def encoder(self) -> PromptEncoder:
        """What makes rows of prompts."""
        return self.family.encoder(self._read(self.family.prompt_parts, self._made), self.compute.device)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings [n, D] of texts: by the model's own text encoder, or `unlearn.anchor_encoder`."""
        return self._anchors.unit_embeddings(texts)

    @cached_property
    def _anchors(self) -> PromptEncoder:
        clip = self.project.recipe.unlearn.anchor_encoder
        if not clip:
            return self.encoder
        from guda_cli.families.stable_diffusion import ClipPrompts
        from guda_cli.latent.text_encoder import load_clip

        return ClipPrompts(load_clip(clip, self.compute.device))

    @cached_property
    def bank(self) -> PromptBank:
        """What the prompts become, as they are asked for."""
        self.encoder  # noqa: B018 - a damaged one may have to be trained again, which a bank's asking forbids
        return PromptBank(self._encode, self.compute.device)

    @cached_property
    def training_prompts(self) -> Tensor:
        """The prompt of each training image in the bank, int64 [N]; the rows come from the store."""
        check_captions(self.project.dataset())
        self.bank.preload(self.prompts, self._rows())
        return self.bank.indices([text or "" for text in self.project.dataset().prompts])

    @cached_property
    def prompts(self) -> list[str]:
        """The distinct prompts of the training images, sorted."""
        return sorted({text for text in self.project.dataset().prompts if text})

    @cached_property
    def latents(self) -> Tensor:
        """x0 of the training images, float32 [N, c, h, w]; computed once and kept in the store."""
        self.ensure()
        action = part_keys.latents(self.project.recipe, self.project.data, self.family)
        record = self.project.ensure(Job(action, self._make_latents))
        return self.project.weights(record, "latents")["latents"]

    def _make_latents(self) -> Made:
        from guda_cli.latent.vae import check_scaling

        images = tensor_of(self.project.dataset().images)
        x0 = self.codec.encode(images, posterior=self.project.recipe.latent.posterior)
        warning = check_scaling(x0)
        if warning:  # where it is measured: it is not repeated for stored latents
            self.project.console.warn(warning)
        return Made({}, weights={"latents": PackedWeights({"latents": x0}, "the latents")})

    def _rows(self) -> Rows:
        self.ensure()
        action = part_keys.embeddings(self.project.data, self.family)
        record = self.project.ensure(Job(action, self._make_rows))
        return self.project.weights(record, "embeddings")

    def _make_rows(self) -> Made:
        rows = self._encode(self.prompts)
        return Made({}, weights={"embeddings": PackedWeights(dict(rows), "the prompts' rows")})

    def _encode(self, texts: Sequence[str]) -> Rows:
        self._tell_cut(texts)
        return self.encoder.rows(texts)

    def _tell_cut(self, texts: Sequence[str]) -> None:
        """Say what of `texts` is not read: of each once, of the first SHOWN in full."""
        if len(self._cut) > SHOWN:
            return
        for text, lost in self.encoder.cut(texts).items():
            if text in self._cut or len(self._cut) > SHOWN:
                continue
            self._cut.add(text)
            told = f"the prompt '{text[:40]}...' is longer than the text encoder reads: '{lost}' was cut"
            if len(self._cut) > SHOWN:
                told = f"more than {SHOWN} prompts are longer than the text encoder reads, and were cut"
            self.project.console.warn(told)
