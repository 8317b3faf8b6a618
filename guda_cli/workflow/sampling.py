"""Sampling as a cached step: images are stored once and written out as often as asked."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass

import numpy as np

from guda_cli.workflow.actions import Action
from guda_cli.workflow.lazy import LazyJobs
from guda_cli.workflow.project import Job, Made, Project
from guda_cli.workflow.removal import Removal
from store import ActionRecord

BATCH = 64


@dataclass(frozen=True)
class Settings:
    """What decides the images, beside the model."""

    count: int
    sampler: str
    steps: int
    seed: int


def action(full: ActionRecord, record: ActionRecord, settings: Settings) -> Action:
    """Drawing `settings.count` images from the model of `record`."""
    inputs = {name: full.outputs[name] for name in ("config", "betas")} | {
        "weights": record.outputs["weights"]
    }
    if record.operation == "unlearn":
        inputs["base"] = full.outputs["weights"]
    steps = settings.count * settings.steps
    return Action(
        "sample", asdict(settings), inputs, f"{settings.count} images", float(steps), 0, "guda sample"
    )


def sample(
    project: Project, full: ActionRecord, record: ActionRecord, settings: Settings, device: str
) -> ActionRecord:
    """Run or reuse the sampling."""

    def make() -> Made:
        from safetensors.numpy import save

        from guda_cli.workflow.compute import setup

        jobs = LazyJobs(project, lambda: setup(device))
        return Made({"images": save({"images": _draw(project, jobs, full, record, settings)})})

    return project.ensure(Job(action(full, record, settings), make))


def _draw(
    project: Project, jobs: LazyJobs, full: ActionRecord, record: ActionRecord, settings: Settings
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    from guda_cli.diffusion import sampling

    if full.operation == "train":
        jobs.full()  # so that a damaged model can be made again
    groups = (record.params.get("without") or {}).get("groups")
    if groups and record.operation == "unlearn":
        jobs.unlearned(Removal(tuple(groups)), full)
    elif groups:
        jobs.without(Removal(tuple(groups)), full)
    denoiser = jobs.models(full).use(record)
    parts = []
    rounds = sum(1 for _ in range(0, settings.count, BATCH)) * min(settings.steps, denoiser.schedule.T)
    with project.console.progress("sample", rounds, unit="step") as bar:
        for start in range(0, settings.count, BATCH):
            indices = range(start, min(start + BATCH, settings.count))
            x = sampling.sample(
                denoiser,
                project.data.shape,
                indices,
                sampler=settings.sampler,
                steps=settings.steps,
                seed=settings.seed,
                on_step=bar.advance,
            )
            parts.append(((x + 1.0) * 127.5).round().clamp(0, 255).byte().cpu().numpy())
    return np.concatenate(parts)


def images(project: Project, record: ActionRecord) -> list[bytes]:
    """The images of a sampling as PNG files."""
    from PIL import Image
    from safetensors.numpy import load

    out = []
    for pixels in load(project.read(record, "images"))["images"]:
        array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        out.append(buffer.getvalue())
    return out
