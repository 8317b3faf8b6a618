"""What the rival methods' engines work with, from the stored model and the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guda_cli.attribution.rivals.engine import Context, FullModel
from guda_cli.data.queries import Query
from guda_cli.store import ActionRecord
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.scoring.instance_settings import MethodSettings
from guda_cli.workflow.scoring.pool import Pool

if TYPE_CHECKING:
    from guda_cli.diffusion.cells import Samples
    from guda_cli.diffusion.denoiser import Network
    from guda_cli.workflow.models.loaded import Models


def context_of(
    jobs: LazyJobs, full: ActionRecord, pool: Pool, settings: MethodSettings, device: str
) -> Context:
    """The context of a method with these settings; the model is loaded when an engine asks for it."""
    return Context(
        settings.values,
        training=pool.data.images,
        membership=pool.data.membership,
        indices=pool.indices,
        digests=pool.digests,
        load=lambda: full_model(jobs.models(full), pool),
        encoder=settings.encoder,
        device=device,
    )


def full_model(models: Models, pool: Pool) -> FullModel:
    """The full model as engines see it."""
    from guda_cli.unlearning import subsets

    return FullModel(
        denoiser=models.use(models.full),
        batch_size=models.batch_size,
        of_pool=lambda: _of_pool(models, pool),
        of_queries=lambda queries: _of_queries(models, queries),
        untrained=lambda: _untrained(models),
        reads_text=subsets.reads_text if models.parts else None,
    )


def _of_pool(models: Models, pool: Pool) -> Samples:
    """The scored training images, each under its own class or prompt."""
    import torch

    from guda_cli.diffusion.cells import Samples

    data, indices, parts = pool.data, pool.indices, models.parts
    images = parts.latents[indices] if parts else torch.from_numpy(pool.pixels)
    names: list[str | None] | None = None
    if parts:
        names = [data.prompts[i] for i in indices]
    elif models.classes is not None:
        names = [data.groups[i] for i in data.membership[indices].argmax(axis=1)]
    return Samples(images, pool.digests, models.conditions(names) if names is not None else None)


def _of_queries(models: Models, queries: Sequence[Query]) -> Samples:
    """Query images, each under its first condition."""
    import torch

    from guda_cli.diffusion.cells import Samples

    pixels = np.stack([query.pixels for query in queries])
    digests = tuple(query.pixels_digest for query in queries)
    images = models.space.x0(pixels, digests) if models.parts else torch.from_numpy(pixels)
    return Samples(images, digests, models.conditions([query.conditions[0] for query in queries]))


def _untrained(models: Models) -> Network:
    """The network with the weights that the recipe's training starts from."""
    from guda_cli.diffusion import networks

    network = networks.build_unet(models.config["unet"], models.project.recipe.train.seed)
    return models.denoiser(network.to(models.compute.device).eval())
