"""Tiny pipelines with random weights, of the true classes, as their own `save_pretrained` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.latent.conftest import END, LETTERS, POSITIONS, START, save_tokenizer, vocabulary


def clip_config(width: int, projection: int) -> Any:
    from transformers import CLIPTextConfig

    words = vocabulary()
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=POSITIONS, projection_dim=projection,
        bos_token_id=words[START], eos_token_id=words[END], pad_token_id=words[END],
    )  # fmt: skip


def vae(channels: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16), layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        sample_size=16, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, **more,
    )  # fmt: skip


def clip_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    if not folder.exists():
        save_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def sdxl(folder: Path, **vae_settings: Any) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=16 + 24, attention_head_dim=(2, 4), use_linear_projection=True,
        transformer_layers_per_block=(1, 2), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 20,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1,
        timestep_spacing="leading",
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        unet=unet, vae=vae(scaling_factor=0.13025, **vae_settings), scheduler=scheduler,
        text_encoder=CLIPTextModel(clip_config(16, 16)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(24, 20)),
        tokenizer=clip_tokenizer(folder / "words"), tokenizer_2=clip_tokenizer(folder / "words"),
        add_watermarker=False,
    )  # fmt: skip


def t5_tokenizer(folder: Path) -> Any:
    """A unigram model of letters, as sentencepiece's that transformers has converted."""
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.processors import TemplateProcessing
    from transformers import T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *LETTERS]
    made = Tokenizer(Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    made.pre_tokenizer = Metaspace()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(
        tokenizer_object=made, extra_ids=0, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=4 + len(LETTERS), d_model=width, d_kv=4, d_ff=16, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        )
    )  # fmt: skip


def flow_scheduler(**more: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0, **more)


def flow_vae() -> Any:
    return vae(
        16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
    )


def sd3(folder: Path, with_t5: bool = True) -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=48, caption_projection_dim=16,
        pooled_projection_dim=16 + 20, out_channels=16, pos_embed_max_size=16, qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, vae=flow_vae(), scheduler=flow_scheduler(),
        text_encoder=CLIPTextModelWithProjection(clip_config(16, 16)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(24, 20)),
        tokenizer=clip_tokenizer(folder / "words"), tokenizer_2=clip_tokenizer(folder / "words"),
        text_encoder_3=t5(48) if with_t5 else None, tokenizer_3=t5_tokenizer(folder) if with_t5 else None,
    )  # fmt: skip


def flux(folder: Path, guidance: bool = True) -> Any:
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=24, pooled_projection_dim=16, guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return FluxPipeline(
        transformer=transformer, vae=flow_vae(), scheduler=flow_scheduler(use_dynamic_shifting=True),
        text_encoder=CLIPTextModel(clip_config(16, 16)), tokenizer=clip_tokenizer(folder / "words"),
        text_encoder_2=t5(24), tokenizer_2=t5_tokenizer(folder),
    )  # fmt: skip


def qwen_tokenizer(folder: Path) -> Any:
    """Bytes and the marks of a chat, without merges."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    letters = sorted(ByteLevel.alphabet())
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    found = Qwen2Tokenizer(
        vocab={letter: i for i, letter in enumerate(letters)},
        merges=[],
        pad_token=marks[0],
        eos_token=marks[2],
    )
    found.add_special_tokens({"additional_special_tokens": marks})
    found.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return found


WORDS = 260  # tokens of `qwen_tokenizer`, with room


def z_image(folder: Path) -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    text = Qwen3Config(
        vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    transformer = ZImageTransformer2DModel(
        in_channels=16, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 6, 6], axes_lens=[600, 64, 64],
    )  # fmt: skip
    return ZImagePipeline(
        transformer=transformer, vae=flow_vae(), scheduler=flow_scheduler(),
        text_encoder=Qwen3Model(text), tokenizer=qwen_tokenizer(folder),
    )  # fmt: skip


def qwen_image(folder: Path) -> Any:
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        },
        image_token_id=1, video_token_id=2, vision_start_token_id=3, vision_end_token_id=4,
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=64, out_channels=16, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    codec = AutoencoderKLQwenImage(
        base_dim=8, z_dim=16, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.1] * 16, latents_std=[1.5] * 16,
    )  # fmt: skip
    return QwenImagePipeline(
        transformer=transformer, vae=codec, scheduler=flow_scheduler(use_dynamic_shifting=True),
        text_encoder=Qwen2_5_VLForConditionalGeneration(text), tokenizer=qwen_tokenizer(folder),
    )  # fmt: skip


def dit(folder: Path, classes: int = 3, **more: Any) -> Any:
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    settings = {"out_channels": 8, **more}
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8,
        num_embeds_ada_norm=classes, **settings,
    )  # fmt: skip
    scheduler = DDIMScheduler(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, clip_sample=False)
    return DiTPipeline(transformer=transformer, vae=vae(scaling_factor=0.18215), scheduler=scheduler)


MADE: dict[str, Callable[..., Any]] = {
    "sdxl": sdxl, "sd3": sd3, "flux": flux, "z-image": z_image, "qwen-image": qwen_image,
    "dit": dit,
}  # fmt: skip
"""How each family's pipeline is made, by the family's name; the folder is for its tokenizer's files."""


def save(name: str, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A pipeline of the family `name` in the new folder `folder`/pipeline."""
    import torch

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    MADE[name](folder, **settings).save_pretrained(folder / "pipeline", safe_serialization=True)
    return folder / "pipeline"
