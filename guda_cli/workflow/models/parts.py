"""Making and loading what stands around a text-to-image network: VAE, text encoder, latents, embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from safetensors.torch import load, save
from torch import Tensor

from guda_cli.checkpoints.components import BLOBS, Components, canonical, latent_shape
from guda_cli.data.styles import check_captions
from guda_cli.diffusion import networks
from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.errors import MissingError
from guda_cli.latent.text_encoder import TextEncoder, load_clip
from guda_cli.latent.text_training import train_text_encoder
from guda_cli.latent.tokenizer import cut
from guda_cli.latent.vae import LatentCodec, check_scaling
from guda_cli.latent.vae_training import train_vae
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import part_keys
from guda_cli.workflow.keys.operations import Action
from guda_cli.workflow.models.resume import run_hooks
from guda_cli.workflow.models.spaces import LatentSpace
from guda_cli.workflow.project.compute import Compute
from guda_cli.workflow.project.project import Job, Made, Project

SHOWN = 3  # prompts of which it is said what was cut


class Parts:
    """The parts of one text-to-image recipe."""

    def __init__(self, project: Project, compute: Compute) -> None:
        self.project, self.compute = project, compute
        self._cut: set[str] = set()

    # -- making them -------------------------------------------------------------------------------

    def ensure(self) -> dict[str, ActionRecord]:
        """What made each part, by the names in BLOBS.

        VAE and text encoder are trained where no pipeline brings them and the store has none.
        """
        recipe, project = self.project.recipe, self.project
        source = recipe.model.registered or recipe.model.base
        if source:
            return dict.fromkeys(BLOBS, self._taken(source))
        if not project.has_parts(project.data):
            check_captions(project.dataset())
        vae = part_keys.vae(recipe, project.data)
        found = project.ensure(Job(vae, lambda: self._train_vae(vae)))
        text = part_keys.text_encoder(recipe, project.data, found.outputs)
        encoder = project.ensure(Job(text, lambda: self._train_text(text, found)))
        return dict.fromkeys(part_keys.VAE, found) | dict.fromkeys(part_keys.TEXT, encoder)

    def _taken(self, source: str) -> ActionRecord:
        found = self.project.store.lookup(source)
        if found is None or set(BLOBS) - found.outputs.keys():
            raise MissingError(
                "the pipeline of this recipe is not in the store", fix="guda train --from DIR takes it over"
            )
        return found

    def _train_vae(self, action: Action) -> Made:
        images = torch.from_numpy(self.project.dataset().images)
        with run_hooks(self.project, action) as (resume, hooks):
            weights, config = train_vae(
                images, self.project.recipe.latent, resume=resume, hooks=hooks, device=self.compute.device
            )
        return Made({"vae": networks.to_bytes(weights), "vae_config": canonical(config)})

    def _train_text(self, action: Action, vae: ActionRecord) -> Made:
        data = self.project.dataset()
        codec = LatentCodec(
            self.project.read(vae, "vae"),
            json.loads(self.project.read(vae, "vae_config")),
            self.compute.device,
        )
        x0 = codec.encode(torch.from_numpy(data.images))
        prompts = [text or "" for text in data.prompts]
        with run_hooks(self.project, action) as (resume, hooks):
            weights, config, tokenizer = train_text_encoder(
                prompts, x0, self.project.recipe.text, resume=resume, hooks=hooks, device=self.compute.device
            )
        outputs = {"text_encoder": networks.to_bytes(weights)}
        return Made(outputs | {"text_config": canonical(config), "tokenizer": canonical(tokenizer)})

    # -- using them --------------------------------------------------------------------------------

    @cached_property
    def _made(self) -> Mapping[str, ActionRecord]:
        return self.ensure()

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """Digest of each part, by the names in BLOBS; ensures them first."""
        return {name: record.outputs[name] for name, record in self._made.items()}

    @cached_property
    def components(self) -> Components:
        """The parts themselves; a damaged one that was trained here is made again."""
        return Components.from_blobs({name: self.project.read(self._made[name], name) for name in BLOBS})

    @cached_property
    def codec(self) -> LatentCodec:
        """The VAE."""
        return LatentCodec(self.components.vae, self.components.vae_config, self.compute.device)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder with its tokenizer."""
        parts = self.components
        return TextEncoder(parts.text_config, parts.text_encoder, parts.tokenizer, device=self.compute.device)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings [n, D] of texts: by the model's own text encoder, or `unlearn.anchor_encoder`."""
        return self._anchor_encoder.unit_embeddings(texts)

    @cached_property
    def _anchor_encoder(self) -> TextEncoder:
        clip = self.project.recipe.unlearn.anchor_encoder
        return load_clip(clip, self.compute.device) if clip else self.encoder

    @cached_property
    def bank(self) -> PromptBank:
        """The prompts' embeddings, as they are asked for."""
        return PromptBank(self._encode, self.compute.device)

    @cached_property
    def conditions(self) -> Tensor:
        """The prompt of each training image in the bank, int64 [N]; the embeddings come from the store."""
        check_captions(self.project.dataset())
        self.bank.preload(self.prompts, self._embeddings())
        return self.bank.indices([text or "" for text in self.project.dataset().prompts])

    @cached_property
    def prompts(self) -> list[str]:
        """The distinct prompts of the training images, sorted."""
        return sorted({text for text in self.project.dataset().prompts if text})

    @cached_property
    def space(self) -> LatentSpace:
        """Latents and prompts as the network knows them."""
        size = self.project.data.shape[1]
        return LatentSpace(self.codec, self.bank, latent_shape(self.components.vae_config, size), size)

    @cached_property
    def latents(self) -> Tensor:
        """x0 of the training images, float32 [N, c, h, w]; computed once and kept in the store."""
        self.digests  # noqa: B018 - makes them
        action = part_keys.latents(self.project.recipe, self.project.data)
        record = self.project.ensure(Job(action, self._make_latents))
        x0: Tensor = load(self.project.read(record, "latents"))["latents"]
        warning = check_scaling(x0)
        if warning:
            self.project.console.warn(warning)
        return x0

    def _make_latents(self) -> Made:
        images = torch.from_numpy(self.project.dataset().images)
        x0 = self.codec.encode(images, posterior=self.project.recipe.latent.posterior)
        return Made({"latents": save({"latents": x0.contiguous()})})

    def _embeddings(self) -> Tensor:
        self.digests  # noqa: B018 - makes them
        action = part_keys.embeddings(self.project.data)
        record = self.project.ensure(Job(action, self._make_embeddings))
        found: Tensor = load(self.project.read(record, "embeddings"))["embeddings"]
        return found

    def _make_embeddings(self) -> Made:
        return Made({"embeddings": save({"embeddings": self._encode(self.prompts).cpu().contiguous()})})

    def _encode(self, texts: Sequence[str]) -> Tensor:
        self._tell_cut(texts)
        return self.encoder.encode(texts)

    def _tell_cut(self, texts: Sequence[str]) -> None:
        """Say what of `texts` is not read: of each once, of the first SHOWN in full."""
        for text in texts:
            lost = cut(self.encoder.tokenizer, text) if len(self._cut) <= SHOWN else None
            if not lost or text in self._cut:
                continue
            self._cut.add(text)
            told = f"the prompt '{text[:40]}...' is longer than the text encoder reads: '{lost}' was cut"
            if len(self._cut) > SHOWN:
                told = f"more than {SHOWN} prompts are longer than the text encoder reads, and were cut"
            self.project.console.warn(told)
