"""Images of the data as queries: what sizes of terms are learnt on, and what verdicts are calibrated on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guda_cli.data.dataset import Dataset
from guda_cli.data.images import pixels_digest
from guda_cli.data.queries import Query
from guda_cli.families.family import CLASS, PROMPT
from guda_cli.workflow.project.project import Project


def training_queries(project: Project, indices: Sequence[int]) -> list[Query]:
    """The training images at `indices`, each with the class or the prompt that it was trained with."""
    return queries_of(project, project.dataset(), indices)


def queries_of(project: Project, data: Dataset, indices: Sequence[int]) -> list[Query]:
    """The images of `data` at `indices`, each with the class or the prompt that the model knows it by."""
    told = project.family.told(project.recipe)
    out = []
    for i in indices:
        pixels, condition = data.images[i], None
        prompts: tuple[str, ...] = ()
        if told == CLASS:
            condition = data.groups[int(np.argmax(data.membership[i]))]
        elif told == PROMPT:
            prompts = (data.prompts[i] or "",)
        out.append(Query(data.names[i], pixels, pixels_digest(pixels), condition, prompts))
    return out
