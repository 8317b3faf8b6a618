"""Sampling as a cached step: images are stored once and written out as often as asked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from guda_cli.data.conditions import PNG_KEY, Classes
from guda_cli.errors import UsageError, unknown
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
    classes: tuple[str, ...] = ()
    """Image i is drawn with class i modulo their number; empty for unconditional models."""
    guidance: float = 1.0

    @property
    def key(self) -> dict[str, Any]:
        """What enters the action's key; that of unconditional models knows no classes."""
        values = asdict(self)
        if self.classes:
            return values | {"classes": list(self.classes)}
        return {name: values[name] for name in ("count", "sampler", "steps", "seed")}

    def class_of(self, i: int) -> str | None:
        """The class of image `i`."""
        return self.classes[i % len(self.classes)] if self.classes else None


def settings_for(
    classes: Classes | None,
    settings: Settings,
    chosen: Sequence[str] | None,
    guidance: float | None,
) -> Settings:
    """`settings` with the `chosen` classes, all in turn by default, and guidance.

    UsageError when an unconditional model is given either, a class is unknown, or the guidance needs a null
    class that the model has not.
    """
    if classes is None:
        if chosen or guidance is not None:
            raise UsageError(
                f"{'--class' if chosen else '--guidance'} needs a class-conditional model",
                why="model.class_conditional is false in this recipe",
            )
        return settings
    for name in chosen or ():
        if name not in classes.names:
            raise UsageError(unknown("class", name, classes.names), fix="guda status lists the groups")
    scale = 1.0 if guidance is None else guidance
    if scale != 1.0 and classes.null is None:
        raise UsageError(
            f"--guidance {scale:g} needs a null class, and this model has none",
            why="guidance goes from the prediction without class towards the one with it",
        )
    return replace(settings, classes=tuple(chosen or classes.names), guidance=scale)


def unseen_classes(record: ActionRecord, settings: Settings) -> list[str]:
    """The classes of `settings` that a model trained without their groups has never been shown."""
    removed = (record.params.get("without") or {}).get("groups") or []
    seen = record.operation != "train"  # unlearned ones were trained on all images
    return [name for name in dict.fromkeys(settings.classes) if not seen and name in removed]


def action(full: ActionRecord, record: ActionRecord, settings: Settings) -> Action:
    """Drawing `settings.count` images from the model of `record`."""
    inputs = {name: full.outputs[name] for name in ("config", "betas")} | {
        "weights": record.outputs["weights"]
    }
    if record.operation == "unlearn":
        inputs["base"] = full.outputs["weights"]
    forwards = settings.count * settings.steps * (1.0 if settings.guidance == 1.0 else 2.0)
    return Action("sample", settings.key, inputs, f"{settings.count} images", forwards, 0, "guda sample")


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
        jobs.without(Removal(tuple(groups)), full, int(record.params["train"]["seed"]))
    models = jobs.models(full)
    denoiser = models.use(record)
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
                cond=models.conditions([settings.class_of(i) for i in indices]),
                guidance=settings.guidance,
                on_step=bar.advance,
            )
            parts.append(((x + 1.0) * 127.5).round().clamp(0, 255).byte().cpu().numpy())
    return np.concatenate(parts)


def images(project: Project, record: ActionRecord, classes: Sequence[str | None]) -> list[bytes]:
    """The images of a sampling as PNG files with each one's class, if any, in the text."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    from safetensors.numpy import load

    out = []
    for name, pixels in zip(classes, load(project.read(record, "images"))["images"], strict=True):
        array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        buffer, text = io.BytesIO(), PngInfo()
        if name is not None:
            text.add_text(PNG_KEY, name)  # iTXt where a name is not Latin-1
        Image.fromarray(array).save(buffer, "PNG", pnginfo=text)
        out.append(buffer.getvalue())
    return out
