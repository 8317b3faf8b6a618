"""What the machine does without guda: networks alone, and the shortest loops that train them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guda_cli.diffusion.denoiser import Network
from guda_cli.diffusion.networks import moved
from guda_cli.diffusion.schedule import Schedule

TOKENS = 77  # of a prompt
SMALL_MODEL = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
"""Entries of a recipe's section `model` for trying the code: a thin network with the same kinds of blocks."""


@dataclass(frozen=True)
class Case:
    """A network, what it is given, and how the program reaches it."""

    name: str
    shape: tuple[int, int, int]
    """[C, H, W] of x0."""
    batch: int
    """Rows of one forward."""
    make: Callable[[], torch.nn.Module]
    schedule: Schedule
    adapt: Callable[[torch.nn.Module], Network]
    """The program's denoiser of such a network."""
    text: int = 0
    """Width of a prompt's states; 0 for networks that read none."""
    backend: str = "inductor"
    """What `torch.compile` makes of it; `eager` only traces it, which tries the code in a few seconds."""

    def network(self, device: str) -> torch.nn.Module:
        """A network with random weights, drawn on the device."""
        torch.manual_seed(0)
        with torch.device(device):
            return moved(self.make(), device)

    def inputs(self, rows: int, device: str) -> tuple[Tensor, ...]:
        """Noisy images, t, noise, and states of prompts if the network reads any."""
        g = torch.Generator(device).manual_seed(0)
        x, noise = (torch.randn(rows, *self.shape, generator=g, device=device) for _ in range(2))
        t = torch.randint(0, self.schedule.T, (rows,), generator=g, device=device)
        text = torch.randn(rows, TOKENS, self.text, generator=g, device=device) if self.text else None
        return (x, t, noise) if text is None else (x, t, noise, text)


def answer(network: torch.nn.Module, x: Tensor, t: Tensor, text: Tensor | None = None) -> Tensor:
    """What a network of diffusers says."""
    told = {} if text is None else {"encoder_hidden_states": text}
    out: Tensor = network(x, t, return_dict=False, **told)[0]
    return out


# -- the network alone ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A way to run a network forwards."""

    name: str
    dtype: torch.dtype = torch.float32
    autocast: bool = False
    tf32: bool = False
    channels_last: bool = False
    compiled: bool = False


BF16 = torch.bfloat16
FORMS = (
    Form("float32"),
    Form("TF32, cudnn.benchmark", tf32=True),
    Form("bf16 autocast, channels_last", autocast=True, channels_last=True, tf32=True),
    Form("bf16 weights, channels_last", BF16, channels_last=True),
    Form("bf16 weights, channels_last, compiled", BF16, channels_last=True, compiled=True),
    Form("TF32, channels_last, compiled", tf32=True, channels_last=True, compiled=True),
)


@contextmanager
def flags(*, tf32: bool = False, benchmark: bool = False) -> Iterator[None]:
    """torch free to be as fast as it can within a precision; its settings are put back afterwards."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    mode = torch.get_deterministic_debug_mode()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32, cudnn.benchmark = tf32, benchmark  # torch allows convolutions TF32 unless told not to
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]
        torch.set_deterministic_debug_mode(mode)


@contextmanager
def forward(form: Form, case: Case, network: torch.nn.Module, device: str) -> Iterator[Callable[[], Tensor]]:
    """One forward of `case.batch` rows by a copy of `network` in that form, inputs on the device already."""
    model = copy.deepcopy(network).eval().requires_grad_(False)
    layout = torch.channels_last if form.channels_last else torch.preserve_format
    torch.nn.Module.to(model, dtype=form.dtype, memory_format=layout)  # diffusers' own imports for a second
    x, t, _, *text = case.inputs(case.batch, device)
    x, text = x.to(form.dtype, memory_format=layout), [states.to(form.dtype) for states in text]
    if form.compiled:
        model.compile(backend=case.backend)

    @torch.inference_mode()
    def work() -> Tensor:
        with torch.autocast(device, BF16, enabled=form.autocast):
            return answer(model, x, t, *text)

    with flags(tf32=form.tf32, benchmark=form.tf32 or form.dtype == BF16):
        yield work


# -- a loop that trains -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """What a bare training step does, beside forward, mean squared error and AdamW."""

    rows: int
    bf16: bool = False
    average: bool = False
    clip: float = 1.0
    teacher: bool = False
    """Whether targets are the answers of a frozen copy."""
    backwards: int = 1
    compiled: bool = False


class Loop:
    """The shortest loop: one batch that lies on the device, nothing read back."""

    def __init__(self, case: Case, network: torch.nn.Module, steps: Steps, device: str) -> None:
        self.steps, self.device = steps, device
        self.model = copy.deepcopy(network).train()
        self.parameters = [p.requires_grad_() for p in self.model.parameters()]
        self.teacher = copy.deepcopy(network).eval().requires_grad_(False) if steps.teacher else None
        self.x, self.t, self.noise, *self.text = case.inputs(steps.rows, device)
        cuda = device == "cuda"
        fast = {"fused": True, "capturable": True} if cuda else {}
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, **fast)
        self.kept = [p.detach().clone() for p in self.parameters] if steps.average else []
        if steps.compiled:
            self.model.compile(backend=case.backend)

    def _cast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device, BF16, enabled=self.steps.bf16)

    def step(self) -> None:
        """One step."""
        target = self.noise
        with self._cast():
            if self.teacher is not None:
                with torch.no_grad():
                    target = answer(self.teacher, self.x, self.t, *self.text).float()
            said = answer(self.model, self.x, self.t, *self.text)
        loss = torch.nn.functional.mse_loss(said.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        for left in reversed(range(self.steps.backwards)):
            loss.backward(retain_graph=left > 0)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.steps.clip, foreach=True)
        self.optimizer.step()
        if self.kept:
            with torch.no_grad():
                torch._foreach_lerp_(self.kept, [p.detach() for p in self.parameters], 0.001)

    def run(self, count: int) -> None:
        """`count` steps."""
        for _ in range(count):
            self.step()


class Graph:
    """A `Loop`'s step captured once and replayed: what launches cost falls away. CUDA only."""

    def __init__(self, loop: Loop) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # as torch asks for it: warmed up aside, then captured
            loop.run(3)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            loop.step()

    def run(self, count: int) -> None:
        """`count` steps."""
        for _ in range(count):
            self.graph.replay()


# -- cases ------------------------------------------------------------------------------------------


def pixels(
    name: str, shape: tuple[int, int, int], batch: int, model: Mapping[str, Any] | None = None
) -> Case:
    """The network of a shipped recipe on images of that shape; `model` are changed entries of it."""
    import dataclasses

    from guda_cli.diffusion.schedule import from_config
    from guda_cli.families.pixels import Pixels, UNetDenoiser
    from guda_cli.settings.lookup import load

    recipe, _ = load(name)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **(model or {})))
    config = Pixels().configs(recipe, shape)
    schedule = from_config(config["scheduler"])
    return Case(
        name, shape, batch, lambda: Pixels().build(config["unet"], 0), schedule,
        lambda network: UNetDenoiser(network, schedule),
    )  # fmt: skip


def text_to_image(
    name: str, unet: Mapping[str, Any], scheduler: Mapping[str, Any], batch: int, prompts: Sequence[str]
) -> Case:
    """A `UNet2DConditionModel` of that configuration; its `prompts` have random states."""
    from guda_cli.diffusion.prompt_bank import PromptBank
    from guda_cli.diffusion.schedule import from_config
    from guda_cli.families.stable_diffusion import ROW, StableDiffusion

    family, width, schedule = StableDiffusion(), int(unet["cross_attention_dim"]), from_config(scheduler)

    def adapt(network: torch.nn.Module) -> Network:
        bank = PromptBank(
            lambda texts: {ROW: torch.randn(len(texts), TOKENS, width)}, next(network.parameters()).device
        )
        bank.indices(prompts)
        return family.denoiser(network, schedule, bank)

    side = int(unet["sample_size"])
    return Case(name, (4, side, side), batch, lambda: family.build(unet, 0), schedule, adapt, width)
