"""What the models people fine-tune weigh at 1024 x 1024: weights, activations, a LoRA's factors, disk.

    python benchmarks/family_sizes.py [FAMILY ...]

Builds each one's published configuration on the meta device, where a tensor has a shape and takes no memory,
by the family's own `build`, puts factors in by `unlearning/lora.py`, and follows one row through the family's
own adapter: a forward for scoring, and a forward and backward with gradient checkpointing for unlearning. The
greatest sum of live tensors beside the weights is what the activations take, of the network in bfloat16, of
the VAE in float32. Prints a table in Markdown.

Not seen so: what the allocator and libraries take on top, and attention that is not fused (it is taken to
be: its matrix of tokens by tokens is never there).
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SIDE = 1024
META = torch.device("meta")
CLIP_L = ("CLIPTextModel", {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768, "vocab_size": 49408,
})  # fmt: skip
CLIP_G = ("CLIPTextModelWithProjection", {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "vocab_size": 49408,
})  # fmt: skip
T5_XXL = ("T5EncoderModel", {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
})  # fmt: skip
QWEN3_4B = ("Qwen3Model", {
    "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
})  # fmt: skip
QWEN25_VL_7B = ("Qwen2_5_VLForConditionalGeneration", {
    "text_config": {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
    },
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    },
    "tie_word_embeddings": False,
})  # fmt: skip


_KL = {
    "sample_size": 1024, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
VAE_4 = ("AutoencoderKL", {**_KL, "latent_channels": 4})
VAE_16 = (
    "AutoencoderKL",
    {**_KL, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
)
VAE_QWEN: tuple[str, Mapping[str, Any]] = ("AutoencoderKLQwenImage", {})


@dataclass(frozen=True)
class Model:
    """A published model, as its repository's config.json files have it."""

    family: str
    title: str
    config: Mapping[str, Any]
    """Of the denoiser, where it differs from the defaults of its class in diffusers."""
    texts: Sequence[tuple[str, Mapping[str, Any]]]
    """Classes and configurations of the text encoders."""
    rows: Mapping[str, tuple[int, ...]]
    """Shape of each row that a prompt becomes, of the longest prompt."""
    vae: tuple[str, Mapping[str, Any]] = VAE_16
    channels: int = 16
    factor: int = 8
    beside: Mapping[str, Any] = field(default_factory=dict)


_SD3 = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "attention_head_dim": 64,
    "joint_attention_dim": 4096, "pooled_projection_dim": 2048, "qk_norm": "rms_norm",
}  # fmt: skip
_CLIPS_AND_T5 = ((CLIP_L[0] + "WithProjection", CLIP_L[1]), CLIP_G, T5_XXL)
_SD3_ROWS = {"text": (77 + 256, 4096), "pooled": (2048,)}

MODELS = {
    # stabilityai/stable-diffusion-xl-base-1.0
    "sdxl": Model("sdxl", "SDXL 1.0", {
        "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
        "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    }, (CLIP_L, CLIP_G), {"text": (77, 2048), "pooled": (1280,)}, VAE_4, 4, beside={"factor": 8}),
    # stabilityai/stable-diffusion-3.5-medium and -large
    "sd3.5-medium": Model("sd3", "SD 3.5 medium", {
        **_SD3, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
        "pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13)),
    }, _CLIPS_AND_T5, _SD3_ROWS),
    "sd3.5-large": Model("sd3", "SD 3.5 large", {
        **_SD3, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
        "pos_embed_max_size": 192,
    }, _CLIPS_AND_T5, _SD3_ROWS),
    # black-forest-labs/FLUX.1-dev
    "flux": Model("flux", "FLUX.1 dev", {"guidance_embeds": True}, (CLIP_L, T5_XXL),
                  {"text": (512, 4096), "pooled": (768,)}, beside={"guidance": 3.5}),
    # Tongyi-MAI/Z-Image
    "z-image": Model("z-image", "Z-Image", {}, (QWEN3_4B,), {"text": (512, 2560), "mask": (512,)}),
    # Qwen/Qwen-Image; its pipeline cuts prompts at 1,024 tokens
    "qwen-image": Model("qwen-image", "Qwen-Image", {}, (QWEN25_VL_7B,),
                        {"text": (1024, 3584), "mask": (1024,)}, VAE_QWEN),
}  # fmt: skip


def on_meta(model: Model) -> torch.nn.Module:
    """Its denoiser by the family's own `build`, without memory."""
    from guda_cli.families.diffusers_pipeline import BESIDE
    from guda_cli.families.known import FAMILIES

    with META:
        return FAMILIES[model.family].build({**model.config, BESIDE: dict(model.beside)}, 0)


def parameters(network: torch.nn.Module) -> int:
    """How many numbers it has."""
    return sum(value.numel() for value in network.parameters())


def of_texts(model: Model) -> int:
    """Parameters of its text encoders."""
    import transformers

    total = 0
    for name, config in model.texts:
        made_of = getattr(transformers, name)
        with META:
            total += parameters(made_of(made_of.config_class(**config)))
    return total


def vae_on_meta(model: Model) -> Any:
    """Its VAE, without memory."""
    import diffusers

    with META:
        return getattr(diffusers, model.vae[0])(**model.vae[1])


def encoding(model: Model) -> int:
    """Most bytes alive beside the VAE's weights while it encodes one picture, in float32."""
    frames = (1,) if model.vae[0] == VAE_QWEN[0] else ()
    vae, pixels = vae_on_meta(model), torch.empty(1, 3, *frames, SIDE, SIDE, device=META)
    with fused_attention(), torch.no_grad(), Live() as live:
        vae.encode(pixels)
    return live.most


@dataclass(frozen=True)
class Adapter:
    """Low-rank factors as `params: lora:RANK` puts them in."""

    numbers: int
    """That are stored."""
    changed: int
    """Numbers of the weights that they are added to."""


def adapter(model: Model, rank: int) -> Adapter:
    """Of its denoiser, by `unlearning/lora.py`'s own targets."""
    from guda_cli.unlearning import lora

    network = on_meta(model)
    changed = sum(network.get_submodule(name).weight.numel() for name in lora.targets(network))  # type: ignore[operator, union-attr]
    with META:
        lora.inject(network, rank, 0)
    stored = lora.factors(dict(network.state_dict()))
    return Adapter(sum(value.numel() for value in stored.values()), changed)


class Live(TorchDispatchMode):
    """The greatest sum of bytes of tensors that operators put out and that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs it, and counts what is new among what it puts out."""
        before = {id(one.untyped_storage()) for one in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for one in _tensors(out):
            storage = one.untyped_storage()
            if id(storage) not in before and storage not in self._known:
                self._known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def _gone(self, size: int) -> None:
        self.now -= size


def _tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, (list, tuple)):
        for one in found:
            yield from _tensors(one)
    elif isinstance(found, Mapping):
        yield from _tensors(list(found.values()))


class _Fused(torch.autograd.Function):
    """Attention as fused kernels have it: what goes in and what comes out is kept, and nothing between."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        query, key, value, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Meanwhile attention is `_Fused`: on the meta device PyTorch would take the kernel that is not."""
    own = torch.nn.functional.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        out: Tensor = _Fused.apply(query, key, value)
        return out

    torch.nn.functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = own


class _Bank:
    """A `PromptBank` of one prompt, without an encoder."""

    def __init__(self, rows: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        self._rows = {
            name: torch.ones(1, *shape, dtype=torch.bool) if name == "mask"
            else torch.empty(1, *shape, dtype=dtype, device=META)
            for name, shape in rows.items()
        }  # fmt: skip

    def told(self, cond: Any, t: Tensor) -> Mapping[str, Tensor]:
        """Its rows, whatever is asked."""
        return self._rows


def activations(model: Model, *, rank: int = 0, dtype: torch.dtype = torch.bfloat16) -> int:
    """Most bytes alive beside the weights for one row: of a forward, or with `rank` also its backward."""
    from guda_cli.families.known import FAMILIES
    from guda_cli.unlearning import lora

    family, network = FAMILIES[model.family], torch.nn.Module.to(on_meta(model), dtype)
    if rank:
        network.enable_gradient_checkpointing()  # type: ignore[operator]
        with META:
            lora.inject(network, rank, 0)
        network.train()
    schedule = family.schedule({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
    bank: Any = _Bank(model.rows, dtype)
    denoiser = family.denoiser(network, schedule, bank)
    side = SIDE // model.factor
    x_t, t = torch.empty(1, model.channels, side, side, device=META), torch.full((1,), 500, device=META)
    with fused_attention(), torch.set_grad_enabled(bool(rank)), Live() as live:
        out = denoiser.predict(x_t, t)
        if rank:
            out.square().sum().backward()
    return live.most


def gigabytes(size: float) -> str:
    """Bytes as GB, of 10^9."""
    return f"{size / 1e9:.1f}"


Numbers = Mapping[str, float]


def on_the_device(n: Numbers) -> tuple[float, float, float]:
    """Bytes for unlearning low-rank factors, for scoring in bfloat16 and in float32.

    Network and text encoders are there in float32. In bfloat16 a copy of the network is beside them, which a
    group's factors are added to; in float32 the weights that they change are there twice.
    """
    around, swapped = 4 * (n["network"] + n["texts"]), 4 * n["changed"]
    unlearn = around + max(n["backward"], swapped + n["forward"])
    score = around + 4 * n["vae"]
    return (
        unlearn,
        score + 2 * n["network"] + max(n["forward"], n["encoding"]),
        score + max(swapped + n["forward"], n["encoding"]),
    )


def pair(*sizes: float) -> str:
    """Bytes as GB, one after the other."""
    return " / ".join(map(gigabytes, sizes))


COLUMNS: dict[str, Callable[[Numbers], str]] = {
    "network": lambda n: f"{n['network'] / 1e9:.2f} B",
    "in float32 / bf16": lambda n: pair(4 * n["network"], 2 * n["network"]),
    "text encoders": lambda n: f"{n['texts'] / 1e9:.2f} B",
    "x0": lambda n: f"{n['channels']:.0f} x {n['side']:.0f} x {n['side']:.0f}",
    "activations: score / unlearn / VAE": lambda n: pair(n["forward"], n["backward"], n["encoding"]),
    "device: unlearn / score / in float32": lambda n: pair(*on_the_device(n)),
    "store: pipeline / full model": lambda n: pair(
        4 * (n["network"] + n["texts"] + n["vae"]), 4 * n["network"]
    ),
    "lora:4 / lora:16": lambda n: f"{4 * n['lora4'] / 1e6:.0f} / {4 * n['lora16'] / 1e6:.0f} MB",
}
"""Cells of the table, of what `numbers` found; GB where nothing else is said."""


def numbers(model: Model) -> dict[str, float]:
    """All that the table says of it: weights and factors counted, activations in bytes."""
    small, large = adapter(model, 4), adapter(model, 16)
    return {
        "network": parameters(on_meta(model)),
        "texts": of_texts(model),
        "vae": parameters(vae_on_meta(model)),
        "channels": model.channels,
        "side": SIDE // model.factor,
        "forward": activations(model),
        "backward": activations(model, rank=4),
        "encoding": encoding(model),
        "changed": small.changed,
        "lora4": small.numbers,
        "lora16": large.numbers,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)} (all)")
    chosen = parser.parse_args().models or list(MODELS)
    print("| model | " + " | ".join(COLUMNS) + " |\n" + "| --- " * (1 + len(COLUMNS)) + "|")
    for name in chosen:
        found = numbers(MODELS[name])
        print(f"| {MODELS[name].title} | " + " | ".join(cell(found) for cell in COLUMNS.values()) + " |")


if __name__ == "__main__":
    main()
