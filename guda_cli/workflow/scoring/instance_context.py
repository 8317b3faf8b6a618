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
        load=lambda: full_model(jobs.models(full), pool, settings.row.mirrors),
        encoder=settings.encoder,
        device=device,
    )


def full_model(models: Models, pool: Pool, mirrors: bool) -> FullModel:
    """The full model as engines see it; `mirrors` those that look at both orientations of the pool."""
    return FullModel(
        denoiser=models.use(models.full),
        batch_size=models.batch_size,
        of_pool=lambda: _of_pool(models, pool),
        of_queries=lambda queries: _of_queries(models, queries),
        untrained=lambda: models.denoiser(models.untrained(models.project.recipe.train.seed).eval()),
        moves=models.family.moves_for_query,
        flip=mirrors and models.project.recipe.train.flip,
    )


def _of_pool(models: Models, pool: Pool) -> Samples:
    """The scored training images, each under its own class or prompt."""
    import torch

    from guda_cli.diffusion.cells import Samples

    space, rows = models.space, torch.from_numpy(pool.indices)
    conditions = space.training_conditions
    return Samples(
        space.training_images[rows], pool.digests, None if conditions is None else conditions[rows]
    )


def _of_queries(models: Models, queries: Sequence[Query]) -> Samples:
    """Query images, each under its first condition."""
    from guda_cli.diffusion.cells import Samples

    digests = tuple(query.pixels_digest for query in queries)
    images = models.space.x0(np.stack([query.pixels for query in queries]), digests)
    return Samples(images, digests, models.conditions([query.conditions[0] for query in queries]))
