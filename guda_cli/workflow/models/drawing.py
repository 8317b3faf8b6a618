"""Sampling as a cached step: images are stored once and written out as often as asked."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from guda_cli.data.classes import PNG_KEY, Classes
from guda_cli.data.dataset import Pixels
from guda_cli.data.embedded import PNG_KEY as PROMPT_KEY
from guda_cli.data.origins import PNG_KEY as ORIGIN_KEY
from guda_cli.data.origins import Origin
from guda_cli.data.sources.names import composed
from guda_cli.errors import UsageError, unknown
from guda_cli.outfile import MARK, PNG_MARK
from guda_cli.phrases import plural
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys.operations import UNLEARN, Action, model_blobs
from guda_cli.workflow.models.jobs import FULL, LazyJobs, Task
from guda_cli.workflow.project import needs
from guda_cli.workflow.project.compute import setup
from guda_cli.workflow.project.model_record import StoredModel
from guda_cli.workflow.project.project import Job, Made, Project

BATCH = 64


@dataclass(frozen=True)
class Settings:
    """What decides the images, beside the model."""

    count: int
    sampler: str
    steps: int
    seed: int
    classes: tuple[str, ...] = ()
    """Image i is drawn with class i modulo their number; empty for models without classes."""
    guidance: float = 1.0
    prompts: tuple[str, ...] = ()
    """The same for text-to-image models."""
    indices: tuple[int, ...] = ()
    """Which images of the seed; the first `count` where empty. Their classes or prompts go by place here."""

    @property
    def key(self) -> dict[str, Any]:
        """What enters the action's key; that of unconditional models knows no classes."""
        values = asdict(self)
        found = {name: values[name] for name in ("count", "sampler", "steps", "seed")}
        if self.classes:
            found |= {"classes": list(self.classes), "guidance": self.guidance}
        if self.prompts:
            found |= {"prompts": list(self.prompts), "guidance": self.guidance}
        if self.indices:
            found["indices"] = list(self.indices)
        return found

    def index_of(self, i: int) -> int:
        """Which image of the seed the `i`-th is."""
        return self.indices[i] if self.indices else i

    def condition_of(self, i: int) -> str | None:
        """The class or prompt of the `i`-th image."""
        names = self.classes or self.prompts
        return names[i % len(names)] if names else None


def conditioned(
    project: Project,
    full: ActionRecord,
    settings: Settings,
    *,
    classes: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    guidance: float | None = None,
) -> Settings:
    """`settings` with what the model is told: prompts where it reads some, classes where it has some.

    UsageError when it is given what it does not take; see `settings_for` and `with_prompts`.
    """
    needs.check_images(project.recipe, settings.count)
    if project.family.prompts and not classes:
        return with_prompts(project, settings, prompts, guidance)
    if prompts:
        raise UsageError(
            "--prompt needs a text-to-image model", why="model.text_conditional is false in this recipe"
        )
    return settings_for(project.classes(full), settings, classes, guidance)


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
    chosen = [composed(name) for name in chosen or ()]
    for name in chosen:
        if name not in classes.names:
            raise UsageError(unknown("class", name, classes.names), fix="guda status --all-rows")
    scale = 1.0 if guidance is None else guidance
    if scale != 1.0 and classes.null is None:
        raise UsageError(
            f"--guidance {scale:g} needs a null class, and this model has none",
            why="guidance goes from the prediction without class towards the one with it",
        )
    return replace(settings, classes=tuple(chosen or classes.names), guidance=scale)


def with_prompts(
    project: Project, settings: Settings, given: Sequence[str] | None, guidance: float | None
) -> Settings:
    """`settings` for a text-to-image model with the prompts `given`, or else training prompts.

    Those are of images drawn at random from each group in turn, seeded by `settings.seed`.
    """
    needs.check_images(project.recipe, settings.count)
    prompts = tuple(given or ()) or _training_prompts(project, settings)
    scale = project.recipe.sample.guidance if guidance is None else guidance
    return replace(settings, prompts=prompts, guidance=scale)


def _training_prompts(project: Project, settings: Settings) -> tuple[str, ...]:
    data = project.dataset()
    rng = np.random.Generator(np.random.PCG64([0x5A3B, settings.seed]))
    orders = [rng.permutation(np.flatnonzero(column)) for column in data.membership.T]
    places = (divmod(i, len(orders)) for i in range(settings.count))
    rows = [orders[group][turn % len(orders[group])] for turn, group in places]
    return tuple(data.prompts[row] or "" for row in rows)


def unseen_classes(model: StoredModel, settings: Settings) -> list[str]:
    """The classes of `settings` that a model trained without their groups has never been shown."""
    if model.removal is None or not model.trained:  # unlearned ones were trained on all images
        return []
    return [name for name in dict.fromkeys(settings.classes) if name in model.removal.groups]


def action(full: ActionRecord, record: ActionRecord, settings: Settings) -> Action:
    """Drawing `settings.count` images from the model of `record`."""
    inputs = {**model_blobs(full), "weights": record.outputs["weights"]}
    if record.operation == UNLEARN:
        inputs["base"] = full.outputs["weights"]
    forwards = settings.count * settings.steps * (1.0 if settings.guidance == 1.0 else 2.0)
    return Action(
        "sample", settings.key, inputs, plural(settings.count, "image", "images"), forwards, 0, "guda sample"
    )


def sample(
    project: Project,
    full: ActionRecord,
    record: ActionRecord,
    settings: Settings,
    device: str,
    jobs: LazyJobs | None = None,
) -> ActionRecord:
    """Run or reuse the sampling; several that share `jobs` load the networks once."""
    needs.check_images(project.recipe, settings.count)
    used = jobs or LazyJobs(project, lambda: setup(device))

    def make() -> Made:
        from safetensors.numpy import save

        return Made({"images": save({"images": _draw(project, used, full, record, settings)})})

    return project.ensure(Job(action(full, record, settings), make))


def _draw(
    project: Project, jobs: LazyJobs, full: ActionRecord, record: ActionRecord, settings: Settings
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    from guda_cli.diffusion import sampling

    model = project.model(record)
    if project.model(full).trained:
        jobs.job(FULL)  # so that a damaged model can be made again
    if model.removal:
        jobs.job(Task(record.operation, model.removal, model.seed), full)
    models = jobs.models(full)
    denoiser = models.use(record)
    parts, batch = [], min(BATCH, models.batch_size)
    rounds = math.ceil(settings.count / batch) * min(settings.steps, denoiser.schedule.T)
    with project.console.progress("sample", rounds, unit="step") as bar:
        for start in range(0, settings.count, batch):
            places = range(start, min(start + batch, settings.count))
            x = sampling.sample(
                denoiser,
                models.space.shape,
                [settings.index_of(i) for i in places],
                sampler=settings.sampler,
                steps=settings.steps,
                seed=settings.seed,
                cond=models.conditions([settings.condition_of(i) for i in places]),
                guidance=settings.guidance,
                clip=models.space.clips,
                on_step=bar.advance,
            )
            parts.append(models.space.images(x))
    return np.ascontiguousarray(np.concatenate(parts))  # safetensors writes memory as it lies


def pixels_of(project: Project, record: ActionRecord) -> Pixels:
    """The images of a sampling, uint8 [count, C, H, W]."""
    from safetensors.numpy import load

    found: Pixels = load(project.read(record, "images"))["images"]
    return found


SHEET = 16


def usual(project: Project, full: ActionRecord, count: int) -> Settings:
    """The recipe's own settings for `count` images."""
    spec = project.recipe.sample
    plain = Settings(count, spec.sampler, spec.steps, spec.seed)
    return conditioned(project, full, plain, guidance=spec.guidance if spec.guidance != 1.0 else None)


def sample_sheet(project: Project, device: str) -> bytes:
    """A PNG of the first images that `guda sample` draws, four in a row."""
    full = project.require_full()
    return sheet(pixels_of(project, sample(project, full, full, usual(project, full, SHEET), device)))


def sheet(pixels: Pixels, across: int = 4) -> bytes:
    """Images uint8 [n, C, H, W] as one PNG, `across` in a row, each enlarged to 96 pixels at least."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    count, channels, height, width = pixels.shape
    gap, times = 4, max(1, math.ceil(96 / height))
    tall, wide = height * times + gap, width * times + gap
    rows = math.ceil(count / across)
    mode, grey = ("L", 128) if channels == 1 else ("RGB", (128, 128, 128))
    whole = Image.new(mode, (across * wide + gap, rows * tall + gap), grey)
    for i, one in enumerate(pixels):
        picture = Image.fromarray(one[0] if channels == 1 else np.ascontiguousarray(one.transpose(1, 2, 0)))
        picture = picture.resize((width * times, height * times), Image.Resampling.NEAREST)
        whole.paste(picture, (gap + i % across * wide, gap + i // across * tall))
    buffer, text = io.BytesIO(), PngInfo()
    text.add_text(PNG_MARK, MARK)
    whole.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def images(project: Project, record: ActionRecord, settings: Settings) -> list[bytes]:
    """The images of a sampling as PNG files; the text holds each one's origin, class and prompt."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    out = []
    for i, pixels in enumerate(pixels_of(project, record)):
        name = settings.condition_of(i)
        array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        buffer, text = io.BytesIO(), PngInfo()
        if name is not None:
            text.add_text(PROMPT_KEY if settings.prompts else PNG_KEY, name)  # iTXt where it is not Latin-1
        text.add_text(ORIGIN_KEY, _origin(record, settings, i).text)
        Image.fromarray(array).save(buffer, "PNG", pnginfo=text)
        out.append(buffer.getvalue())
    return out


def _origin(record: ActionRecord, settings: Settings, i: int) -> Origin:
    """Where the `i`-th image of the sampling `record` comes from."""
    s, name = settings, settings.condition_of(i)
    model = record.inputs["weights"]
    return Origin(s.index_of(i), s.seed, s.sampler, s.steps, s.guidance, model, name)
