"""How much of a training's or unlearning's time is the network's: a bare loop of the same passes over ours.

    python benchmarks/steps.py
    python benchmarks/steps.py --only retrack,anchor:awss --steps 40 --repeats 5
    python benchmarks/steps.py --device cuda --width 128 --size 32 --batch 128 --precision bf16

A bare loop has its batches ready on the device: forward, mean squared error, backward, clipping, AdamW, and
whatever else the operator needs of the network: the full model's forwards, a second backward. What ours does
beside that (drawing, the operator's arithmetic, checks, the text encoder) is what the share lacks to 1.
Both run alternately in one process. The last column is the digest of the weights that ours ends with.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guda_cli.data.styles import ParsedPrompt, render
from guda_cli.diffusion.denoiser import Network, squared_error
from guda_cli.diffusion.networks import to_bytes
from guda_cli.diffusion.noise import generator
from guda_cli.diffusion.prompt_bank import PromptBank
from guda_cli.diffusion.schedule import from_config
from guda_cli.families.pixels import Pixels
from guda_cli.families.stable_diffusion import ClipPrompts, StableDiffusion
from guda_cli.sections import TextSpec, TrainSpec, UnlearnSpec
from guda_cli.training import loop
from guda_cli.training.precision import mixed
from guda_cli.training.scale import Scale
from guda_cli.training.train import train
from guda_cli.unlearning import catalog, subsets
from guda_cli.unlearning.operators.base import Problem, TextProblem
from guda_cli.unlearning.unlearn import unlearn
from guda_cli.workflow.project import compute

TARGET = 0.85
IMAGES, GROUPS = 960, 8
TRAINING = "train"
WORDS = ("ink", "oil", "wash", "chalk", "flat", "soft", "thick", "thin", "pale", "vivid", "rough", "smooth")


@dataclass(frozen=True)
class Machine:
    """What everything is measured with."""

    device: torch.device
    steps: int
    batch: int
    size: int
    width: int
    precision: str
    params: str


@dataclass(frozen=True)
class Case:
    """Ours ends with weights; the bare loop with nothing."""

    name: str
    ours: Callable[[], dict[str, Tensor]]
    bare: Callable[[], None]


def main() -> None:
    machine, only, repeats = arguments()
    how = f"{machine.precision}, {machine.params}, on {machine.device}"
    print(f"{machine.steps} steps of {machine.batch}, {how}")
    print(
        f"{'':<22} {'bare, ms a step':>16} {'ours':>8} {'share':>7}   digest (target of the share: {TARGET})"
    )
    for name in only or (TRAINING, *catalog.names()):
        case = training(machine) if name == TRAINING else unlearning(machine, name)
        case.bare(), case.ours()
        pairs = [(timed(case.bare, machine), timed(case.ours, machine)) for _ in range(repeats)]
        share = statistics.median(bare / ours for bare, ours in pairs)
        bare, ours = (1000 * statistics.median(times) / machine.steps for times in zip(*pairs, strict=True))
        digest = hashlib.sha256(to_bytes(case.ours())).hexdigest()[:12]
        print(f"{name:<22} {bare:>16.2f} {ours:>8.2f} {share:>7.2f}   {digest}", flush=True)


def arguments() -> tuple[Machine, list[str], int]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help=f"{TRAINING} or operators, with commas between")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=8, help="a side of the images or latents")
    parser.add_argument("--width", type=int, default=32, help="channels of the first block")
    parser.add_argument("--precision", default="no", choices=("no", "bf16", "fp16"))
    parser.add_argument("--params", default="full", help="what unlearning trains: full, lora:4, ...")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    device = compute.setup(args.device).device
    machine = Machine(device, args.steps, args.batch, args.size, args.width, args.precision, args.params)
    return machine, [name for name in args.only.split(",") if name], args.repeats


def timed(work: Callable[[], object], machine: Machine) -> float:
    """Seconds until the device has done it; on a CPU the process's own, which others' work does not touch."""
    clock = time.process_time if machine.device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if machine.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


# -- what is measured ---------------------------------------------------------------------------------


def training(machine: Machine) -> Case:
    spec = TrainSpec(
        steps=machine.steps, batch_size=machine.batch, lr=1e-4, mixed_precision=machine.precision, flip=True
    )
    images, (fresh, start) = pictures(machine), pixels(machine)
    schedule = fresh.schedule

    def ours() -> dict[str, Tensor]:
        fresh.network.load_state_dict(start)
        return train(fresh, images, spec, hooks=loop.Hooks())

    def bare() -> None:
        fresh.network.load_state_dict(start)
        bare_loop(fresh, None, machine, [0] * machine.steps, shape=tuple(images.shape[1:]), T=schedule.T)

    return Case(TRAINING, ours, bare)


def unlearning(machine: Machine, operator: str) -> Case:
    row = catalog.row(operator)
    text = "prompts" in row.needs
    conditional = text or "null" in row.needs
    own = {"guidance": 3.0} if operator == "esd" else {}
    spec = UnlearnSpec(
        operator=operator, steps=machine.steps, batch_size=machine.batch, lr=1e-4, t_min=0.0,
        params=machine.params, **own,
    )  # fmt: skip
    if text:
        problem, full, make = painted(machine, spec)
    else:
        problem, full, make = drawn(machine, spec, conditional)
    teacher = full if catalog.asks_full(spec) else None
    # of whose forwards the operator asks beside those of distillation: entries of the group in each step
    extra = round(row.asks)
    rows = [extra * machine.batch * int(problem.forget.sum()) // len(problem.forget)] * machine.steps

    def ours() -> dict[str, Tensor]:
        return unlearn(
            make(), problem, teacher=teacher, scale=Scale(precision=machine.precision), hooks=loop.Hooks()
        )

    def bare() -> None:
        student = make()
        subsets.prepare(student.network, spec.params, spec.seed)
        told = None if problem.cond is None else problem.cond[: machine.batch]
        bare_loop(
            student, teacher, machine, rows, shape=tuple(problem.images.shape[1:]), T=problem.schedule.T,
            cond=told, distilled=spec.retain == "distill", backwards=row.backwards,
        )  # fmt: skip

    return Case(operator, ours, bare)


def bare_loop(
    student: Network,
    teacher: Network | None,
    machine: Machine,
    extra: Sequence[int],
    *,
    shape: tuple[int, ...],
    T: int,
    cond: Tensor | None = None,
    distilled: bool = False,
    backwards: int = 1,
) -> None:
    """The passes alone: `extra` are the rows that the teacher is asked about in each step."""
    model = mixed(student, machine.precision)
    asked = None if teacher is None else mixed(teacher, machine.precision)
    device, g = machine.device, generator("bench", 0)
    x, noise = (torch.randn(machine.batch, *shape, generator=g).to(device) for _ in range(2))
    t = torch.randint(1, T + 1, (machine.batch,), generator=g).to(device)
    told = None if cond is None else cond.to(device)
    student.network.train()
    parameters = [p for p in student.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    for rows in extra:
        optimizer.zero_grad(set_to_none=True)
        target = noise
        with torch.no_grad():
            if distilled and asked is not None:
                target = asked.predict(x, t, told)
            if rows and asked is not None:
                asked.predict(x[:rows], t[:rows], None if told is None else told[:rows])
        losses = squared_error(model.predict(x, t, told), target)
        for _ in range(backwards - 1):
            torch.autograd.grad(losses[0], parameters, retain_graph=True, allow_unused=True)
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


# -- networks and data --------------------------------------------------------------------------------


def network_config(machine: Machine, channels: int) -> dict[str, Any]:
    return {
        "sample_size": machine.size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (machine.width, 2 * machine.width),
        "layers_per_block": 1,
        "norm_num_groups": 8,
    }


def pictures(machine: Machine) -> Tensor:
    shape = (IMAGES, 3, machine.size, machine.size)
    return torch.randint(0, 256, shape, generator=generator("bench", 1), dtype=torch.uint8)


def pixels(machine: Machine, classes: int = 0) -> tuple[Network, dict[str, Tensor]]:
    """A network of the pixel family, and its weights to start from."""
    family = Pixels()
    config = network_config(machine, 3) | {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "add_attention": False,
    }
    config |= {"num_class_embeds": classes + 1} if classes else {}
    schedule = from_config({"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"})
    network = family.build(config, 0).to(machine.device)
    start = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return family.denoiser(network, schedule, None), start


Made = tuple[Problem, Network, Callable[[], Network]]


def drawn(machine: Machine, spec: UnlearnSpec, conditional: bool) -> Made:
    """Pictures of noise in GROUPS groups, the full model, and what makes another of it."""
    full, _ = pixels(machine, GROUPS if conditional else 0)
    groups = torch.arange(IMAGES) % GROUPS
    null = torch.tensor(full.null) if conditional else None
    problem = Problem(
        pictures(machine), groups == 0, full.schedule, spec, groups if conditional else None, null,
        0.1 if conditional else 0.0,
    )  # fmt: skip
    frozen(full)
    return problem, full, lambda: pixels(machine, GROUPS if conditional else 0)[0]


def painted(machine: Machine, spec: UnlearnSpec) -> Made:
    """Latents of noise, of contents in styles, with their prompts; a model with Stable Diffusion's parts."""
    bank, prompts = reader(machine)
    text = text_problem(bank, prompts)
    family = StableDiffusion()
    config = network_config(machine, 4) | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "cross_attention_dim": 64,
    }
    schedule = from_config(
        {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    )

    def make() -> Network:
        return family.denoiser(family.build(config, 0).to(machine.device), schedule, bank)

    full = make()
    latents = torch.randn(IMAGES, 4, machine.size, machine.size, generator=generator("bench", 1))
    problem = Problem(
        latents,
        text.membership[:, 0],
        schedule,
        spec,
        bank.indices(text.prompts),
        torch.tensor(0),
        0.1,
        text=text,
    )
    frozen(full)
    return problem, full, make


def frozen(full: Network) -> None:
    full.network.eval().requires_grad_(False)


def reader(machine: Machine) -> tuple[PromptBank, ClipPrompts]:
    """A CLIP text encoder as the recipe emoji-styles has it, untrained, and a bank before it."""
    from guda_cli.latent.text_encoder import TextEncoder, build_text_encoder, text_config
    from guda_cli.latent.tokenizer import load_tokenizer, train_tokenizer

    files = train_tokenizer([f"{a} {b} object" for a in WORDS for b in WORDS], 600)
    config = text_config(TextSpec(hidden_size=64, layers=2, heads=4), load_tokenizer(files))
    weights = {name: v.contiguous() for name, v in build_text_encoder(config, 0).state_dict().items()}
    prompts = ClipPrompts(TextEncoder(config, weights, files, device=machine.device))
    return PromptBank(prompts.rows, machine.device), prompts


def text_problem(bank: PromptBank, encoder: ClipPrompts) -> TextProblem:
    spec, names = TextSpec(), tuple(f"style{i}" for i in range(GROUPS))
    styles = {
        name: tuple(f"{w} {v}" for w in WORDS[i : i + 3] for v in WORDS[-3:]) for i, name in enumerate(names)
    }
    group = [i % GROUPS for i in range(IMAGES)]
    content = tuple(
        f"object {WORDS[i // GROUPS % 12]} {WORDS[i // GROUPS // 12 % 12]}" for i in range(IMAGES)
    )
    parsed = tuple(ParsedPrompt(c, styles[names[k]][:3]) for c, k in zip(content, group, strict=True))
    return TextProblem(
        bank=bank,
        prompts=tuple(render(p.object, p.descriptors, spec) for p in parsed),
        parsed=parsed,
        membership=torch.nn.functional.one_hot(torch.tensor(group)).bool(),
        groups=names,
        styles=styles,
        spec=spec,
        embed=encoder.unit_embeddings,
        content=content,
        removed=frozenset(names[:1]),
    )


if __name__ == "__main__":
    main()
