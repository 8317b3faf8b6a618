"""The codec against diffusers' own arithmetic, and training the autoencoder."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor

from guda_cli.checkpoints.components import latent_shape
from guda_cli.data.images import pixels_digest
from guda_cli.errors import DataError
from guda_cli.latent import vae as vae_module
from guda_cli.latent.vae import LatentCodec, build_vae, check_scaling, spread_map, vae_config
from guda_cli.latent.vae_training import crops, train_vae, vae_loss
from guda_cli.sections import LatentSpec
from guda_cli.training import loop
from guda_cli.training.run_state import RunState

SPEC = LatentSpec(
    block_out_channels=(8, 8), layers_per_block=1, latent_channels=3, norm_num_groups=4,
    steps=4, batch_size=3, lr=1e-3, seed=1,
)  # fmt: skip


def pictures(count: int = 5, size: int = 8, seed: int = 0) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return torch.from_numpy(pixels)


def codec(seed: int = 0, **settings: Any) -> LatentCodec:
    config = {**vae_config(SPEC, 8, 3), "scaling_factor": 0.7, **settings}
    return LatentCodec(build_vae(config, seed).state_dict(), config)


def test_the_network_is_the_configured_one_and_its_seed_s() -> None:
    config = vae_config(SPEC, 8, 3)
    one, same, other = (build_vae(config, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    vae = build_vae(config, 0)
    assert isinstance(vae, AutoencoderKL)
    assert {name: vae.config[name] for name in config if name != "_class_name"} == {
        name: value for name, value in config.items() if name != "_class_name"
    }
    assert latent_shape(config, 8) == (3, 4, 4)


def test_a_network_that_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="AutoencoderKL"):
        build_vae({**vae_config(SPEC, 8, 3), "norm_num_groups": 3}, 0)
    with pytest.raises(DataError, match="do not fit"):
        LatentCodec(codec().vae.state_dict(), {**vae_config(SPEC, 8, 3), "latent_channels": 2})


def test_weights_that_are_not_finite_are_refused() -> None:
    weights = codec().vae.state_dict()
    weights["decoder.conv_out.bias"][0] = math.nan
    with pytest.raises(DataError, match="NaN"):
        LatentCodec(weights, vae_config(SPEC, 8, 3))


@pytest.mark.parametrize("shift", [None, 0.25])
def test_encoding_is_what_diffusers_makes_of_a_picture(shift: float | None) -> None:
    """The image processor of the pipelines reads the same pixels from PIL images."""
    images, own = pictures(), codec(shift_factor=shift)
    processor = VaeImageProcessor(vae_scale_factor=2)
    opened = processor.preprocess([Image.fromarray(i.numpy().transpose(1, 2, 0)) for i in images])
    with torch.no_grad():
        mean = own.vae.encode(opened).latent_dist.mode()
    found = own.encode(images)
    assert found.shape == (5, 3, 4, 4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (mean - (shift or 0.0)) * 0.7, atol=1e-5, rtol=1e-5)


def test_decoding_is_what_a_pipeline_makes_of_latents() -> None:
    own, x0 = codec(), torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoded = own.vae.decode(x0 / 0.7).sample
    expected = VaeImageProcessor(vae_scale_factor=2).postprocess(decoded, output_type="pil")
    found = own.decode(x0)
    assert found.dtype == torch.uint8
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.numpy().transpose(1, 2, 0), np.asarray(other))


def test_an_image_s_latent_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    images, own = pictures(7), codec()
    whole = {kind: own.encode(images, posterior=kind) for kind in ("mean", "sample")}
    monkeypatch.setattr(vae_module, "PIXELS_A_BATCH", 3 * 64)
    for kind, x0 in whole.items():
        torch.testing.assert_close(own.encode(images, posterior=kind), x0, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            own.encode(images.flip(0), posterior=kind).flip(0), x0, atol=1e-5, rtol=1e-5
        )
    torch.testing.assert_close(
        own.decode(x0).int(), torch.cat([own.decode(one[None]) for one in x0]).int(), atol=1, rtol=0
    )


def test_a_sample_is_the_posterior_s_seeded_by_the_pixels() -> None:
    images, own = pictures(400), codec()
    with torch.no_grad():
        posterior = own.vae.encode(images.float() / 127.5 - 1.0).latent_dist
    sample = own.encode(images, posterior="sample")
    assert torch.equal(sample, own.encode(images, posterior="sample"))
    z = (sample / 0.7 - posterior.mean) / posterior.std
    assert abs(float(z.mean())) < 0.03
    assert float(z.std()) == pytest.approx(1.0, abs=0.03)
    digests = [pixels_digest(image.numpy()) for image in images]
    assert torch.equal(sample, own.encode(images, posterior="sample", digests=digests))
    twins = own.encode(images[[0, 1, 0]], posterior="sample")
    torch.testing.assert_close(twins[0], twins[2])
    assert not torch.allclose(twins[0], twins[1])


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="channels, not 1"):
        codec().encode(pictures()[:, :1])
    with pytest.raises(DataError, match="7 x 7"):
        codec().encode(pictures(size=7))
    with pytest.raises(TypeError):
        codec().encode(pictures().float())


def test_values_that_are_not_finite_are_said() -> None:
    own, x0 = codec(), torch.zeros(2, 3, 4, 4)
    x0[1, 0, 0, 0] = math.inf
    with pytest.raises(DataError, match="to decode"):
        own.decode(x0)
    with torch.no_grad():
        own.vae.decoder.conv_out.weight *= 1e39
        own.vae.encoder.conv_out.weight *= 1e39
    with pytest.raises(DataError, match="NaN or infinite pixels") as caught:
        own.decode(torch.ones(2, 3, 4, 4))
    assert "fp16" in caught.value.why
    with pytest.raises(DataError, match="encodes"):
        own.encode(pictures())


@pytest.mark.parametrize(
    ("std", "warned"), [(0.1, True), (0.5, False), (1.0, False), (2.5, False), (5.0, True)]
)
def test_a_scaling_far_from_one_is_warned_of(std: float, warned: bool) -> None:
    x0 = std * torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    warning = check_scaling(x0)
    assert (warning is not None) == warned
    assert warning is None or "scaling_factor" in warning


@pytest.mark.parametrize("size", [4, 8, 9, 12])
def test_a_spread_map_keeps_its_sum_and_is_bilinear(size: int) -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 4))
    spread = spread_map(values, size)
    assert spread.shape == (2, size, size)
    np.testing.assert_allclose(spread.sum((1, 2)), values.sum((1, 2)))
    if size % 4 == 0:
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(values)[None], size=(size, size), mode="bilinear", align_corners=False
        )[0]
        np.testing.assert_allclose(spread * (size / 4) ** 2, expected.numpy())


def run(
    resume: RunState | None = None, hooks: loop.Hooks | None = None, spec: LatentSpec = SPEC
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return train_vae(pictures(12), spec, resume=resume, hooks=hooks or loop.Hooks())


def test_resumed_at_every_save_ends_in_the_same_bits() -> None:
    states: dict[int, bytes] = {}

    def save(state: RunState) -> None:
        states[state.step] = state.to_bytes()

    whole, config = run(hooks=loop.Hooks(save=save, save_seconds=0.0))
    assert sorted(states) == [1, 2, 3]
    for step, data in states.items():
        again, same = run(RunState.from_bytes(step, data))
        assert same == config
        assert all(torch.equal(again[name], value) for name, value in whole.items()), step


def test_latents_of_the_training_images_have_unit_deviation() -> None:
    weights, config = run()
    x0 = LatentCodec(weights, config).encode(pictures(12))
    assert float(x0.std()) == pytest.approx(1.0, rel=1e-4)


def test_it_learns_to_draw_its_images() -> None:
    """Pictures of four flat squares, which three latent channels hold."""
    colours = pictures(16, size=2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    told: list[float] = []
    spec = LatentSpec(
        block_out_channels=(8, 8), norm_num_groups=1, latent_channels=3, steps=150, batch_size=8, lr=5e-3
    )
    weights, config = train_vae(colours, spec, hooks=loop.Hooks(on_step=told.append))
    own = LatentCodec(weights, config)
    error = float((own.decode(own.encode(colours)).float() - colours.float()).square().mean())
    assert len(told) == 150
    assert error < 0.4 * float(colours.float().var())
    assert np.mean(told[-5:]) < 0.3 * np.mean(told[:5])


def test_larger_images_are_seen_in_parts_at_first() -> None:
    """The parts are seeded by the step; what no crop fits into evenly is left whole."""
    x = torch.arange(2 * 64 * 64).view(2, 1, 64, 64)
    part = crops(x, 32, 0, 5)
    assert part.shape == (2, 1, 32, 32)
    assert torch.equal(part, crops(x, 32, 0, 5))
    assert not torch.equal(part, crops(x, 32, 0, 6))
    for i in range(2):
        top, left = divmod(int(part[i, 0, 0, 0]) % 4096, 64)
        assert torch.equal(part[i], x[i, :, top : top + 32, left : left + 32])
    assert crops(x, 64, 0, 5) is x
    assert crops(x, 48, 0, 5) is x
    spec = dataclasses.replace(SPEC, batch_size=1)
    weights, config = train_vae(pictures(2, 64), spec, hooks=loop.Hooks())
    assert config["sample_size"] == 64
    assert LatentCodec(weights, config).encode(pictures(1, 64)).shape == (1, 3, 32, 32)


def test_the_loss_by_hand() -> None:
    vae = build_vae(vae_config(SPEC, 8, 3), 3)
    x = pictures(2).float() / 127.5 - 1.0
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, logvar = vae.quant_conv(vae.encoder(x)).double().chunk(2, dim=1)
        z = mean + (0.5 * logvar).exp() * noise
        squares = (vae.decoder(vae.post_quant_conv(z.float())) - x).square().mean()
        kl = 0.5 * (mean**2 + logvar.exp() - 1.0 - logvar).sum() / (2 * 64)
        assert float(vae_loss(vae, x, noise, 0.3)) == pytest.approx(float(squares + 0.3 * kl), rel=1e-5)


def test_what_cannot_be_trained_on_is_said() -> None:
    with pytest.raises(DataError, match="square"):
        train_vae(pictures()[:, :, :4], SPEC, hooks=loop.Hooks())
    spec = LatentSpec(block_out_channels=(8, 8), norm_num_groups=4, steps=20, batch_size=2, lr=1e30)
    with pytest.raises(loop.Diverged) as caught:
        train_vae(pictures(), spec, hooks=loop.Hooks())
    assert "latent.lr" in caught.value.fix
