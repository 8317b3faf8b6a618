from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guda_cli.attribution.rivals.gradients import (
    OBJECTIVES,
    evenly_spaced,
    gradient_features,
    parameter_count,
    residuals,
)
from guda_cli.attribution.rivals.projection import CountSketch
from guda_cli.diffusion.denoiser import Denoiser, add_noise
from guda_cli.diffusion.noise import QueryNoise
from guda_cli.errors import UsageError
from tests.attribution.small_denoisers import Affine, Identity, SmallDenoiser, Wavy
from tests.diffusion.tiny import PREDICTIONS, float_images, make_denoiser, make_schedule

STEPS = [3, 20, 47]
SHAPE = (1, 4, 4)


def named(count: int, prefix: str = "image") -> list[str]:
    return [f"{prefix}-{i}" for i in range(count)]


def looped(
    denoiser: Denoiser,
    module: torch.nn.Module,
    x0: Tensor,
    *,
    objective: str,
    draws: int = 1,
    seed: int = 0,
    unit_norm: bool = False,
    cond: Tensor | None = None,
) -> npt.NDArray[np.float64]:
    """Mean gradients [N, P], one ordinary backward pass at a time."""
    rows = []
    for i, digest in enumerate(named(len(x0))):
        total = torch.zeros(parameter_count(denoiser), dtype=torch.float64)
        for t in STEPS:
            for draw in range(draws):
                noise = QueryNoise(seed).fill(torch.empty(1, *x0.shape[1:]), [(digest, t, draw)])
                at = torch.tensor([t])
                x_t = add_noise(denoiser.schedule, x0[i : i + 1], noise, at)
                raw = denoiser.predict(x_t, at, None if cond is None else cond[i : i + 1])
                abar = float(denoiser.schedule.abar[t])
                predicted = {
                    "epsilon": raw,
                    "v_prediction": abar**0.5 * raw + (1 - abar) ** 0.5 * x_t,
                    "sample": (x_t - abar**0.5 * raw) / (1 - abar) ** 0.5,
                }[denoiser.schedule.prediction_type]
                value = {
                    "loss": ((predicted - noise) ** 2).mean(),
                    "square": (predicted**2).mean(),
                    "mean": predicted.mean(),
                }[objective]
                found = torch.autograd.grad(value, list(module.parameters()), materialize_grads=True)
                flat = torch.cat([g.flatten() for g in found]).double()
                total += flat / flat.norm() if unit_norm else flat
        rows.append(total / (len(STEPS) * draws))
    return np.asarray(torch.stack(rows).numpy())


def near(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float64], rtol: float = 1e-4) -> None:
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * float(np.abs(expected).max()))


@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gradients_are_those_of_autograd(prediction: str, objective: str, unit_norm: bool) -> None:
    net = Wavy()
    denoiser = SmallDenoiser(net, make_schedule(prediction=prediction))
    x0 = float_images(3, SHAPE)
    found = gradient_features(
        denoiser, x0, named(3), objective=objective, timesteps=STEPS, draws=2, seed=5,
        projection=Identity(parameter_count(denoiser)), unit_norm=unit_norm,
    )  # fmt: skip
    assert found.dtype == np.float32
    near(found, looped(denoiser, net, x0, objective=objective, draws=2, seed=5, unit_norm=unit_norm))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_real_unet_with_group_norm_and_attention(objective: str) -> None:
    denoiser = make_denoiser(add_attention=True)
    x0 = float_images(2)
    found = gradient_features(
        denoiser, x0, named(2), objective=objective, timesteps=STEPS, seed=1,
        projection=Identity(parameter_count(denoiser)), chunk=4,
    )  # fmt: skip
    near(found, looped(denoiser, denoiser.network, x0, objective=objective, seed=1), rtol=5e-4)


def test_the_condition_reaches_the_network() -> None:
    net = Wavy()
    denoiser, x0, cond = SmallDenoiser(net), float_images(3, SHAPE), torch.tensor([2, 0, 1])
    found = gradient_features(
        denoiser, x0, named(3), objective="loss", timesteps=STEPS, seed=0, cond=cond,
        projection=Identity(parameter_count(denoiser)), chunk=2,
    )  # fmt: skip
    near(found, looped(denoiser, net, x0, objective="loss", cond=cond))
    classy = make_denoiser(num_class_embeds=3)
    per_class = [
        gradient_features(
            classy, x0[:1].repeat(1, 1, 2, 2), ["q"], objective="loss", timesteps=[9], seed=0,
            projection=CountSketch(parameter_count(classy), 64), cond=given,
        )
        for given in (torch.tensor([0]), torch.tensor([2]), None)  # 2 is the null class
    ]  # fmt: skip
    assert np.array_equal(per_class[1], per_class[2])
    assert not np.array_equal(per_class[0], per_class[1])


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(5)), st.integers(1, 7), st.integers(1, 5), st.booleans())
def test_features_do_not_depend_on_company_order_or_chunk(
    order: list[int], chunk: int, kept: int, unit_norm: bool
) -> None:
    denoiser = SmallDenoiser(Wavy())
    x0, names, projection = float_images(5, SHAPE), named(5), CountSketch(parameter_count(denoiser), 16)

    def features(rows: list[int], chunk: int) -> npt.NDArray[np.float32]:
        return gradient_features(
            denoiser, x0[rows], [names[i] for i in rows], objective="loss", timesteps=STEPS, draws=2,
            seed=3, projection=projection, unit_norm=unit_norm, chunk=chunk,
        )  # fmt: skip

    expected = features(list(range(5)), 64)[order[:kept]]
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(features(order[:kept], chunk), expected, rtol=1e-4, atol=1e-5 * scale)


def test_noise_follows_seed_and_digest() -> None:
    denoiser = SmallDenoiser(Wavy())
    x0, projection = float_images(1, SHAPE), CountSketch(parameter_count(denoiser), 16)

    def features(digest: str, seed: int) -> npt.NDArray[np.float32]:
        return gradient_features(
            denoiser, x0, [digest], objective="loss", timesteps=STEPS, seed=seed, projection=projection
        )

    assert np.array_equal(features("a", 1), features("a", 1))
    assert not np.array_equal(features("a", 1), features("a", 2))
    assert not np.array_equal(features("a", 1), features("b", 1))


def test_projected_features_are_the_projection_of_the_features() -> None:
    denoiser = make_denoiser()
    x0, P = float_images(3), parameter_count(denoiser)
    exact, sketched = (
        gradient_features(
            denoiser, x0, named(3), objective="mean", timesteps=STEPS, seed=1, projection=projection
        )
        for projection in (Identity(P), CountSketch(P, 128, seed=9))
    )
    expected = CountSketch(P, 128, seed=9)([torch.from_numpy(exact)]).numpy()
    near(sketched, expected.astype(np.float64))


def test_unit_length_is_that_of_the_whole_gradient() -> None:
    denoiser = SmallDenoiser(Wavy())
    found = gradient_features(
        denoiser, float_images(4, SHAPE), named(4), objective="mean", timesteps=[20], seed=0,
        projection=Identity(parameter_count(denoiser)), unit_norm=True,
    )  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)


def test_a_zero_gradient_stays_zero() -> None:
    net = Affine()
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.zeros_(net.bias)
    denoiser = SmallDenoiser(net)
    found = gradient_features(
        denoiser, float_images(2, (1, 2, 2)), named(2), objective="square", timesteps=[9], seed=0,
        projection=Identity(20), unit_norm=True,
    )  # fmt: skip
    assert not found.any()


def test_residuals_are_relative_to_the_noise() -> None:
    net = Affine()
    denoiser, x0 = SmallDenoiser(net), float_images(3, (1, 2, 2))
    W, b = (value.detach().double().numpy() for value in (net.weight, net.bias))
    expected = np.zeros(3)
    for i in range(3):
        for t in STEPS:
            noise = QueryNoise(4).fill(torch.empty(1, 4), [(f"image-{i}", t, 0)])[0].double().numpy()
            abar = denoiser.schedule.abar[t]
            x_t = np.sqrt(abar) * x0[i].double().numpy().ravel() + np.sqrt(1 - abar) * noise
            expected[i] += np.linalg.norm(W @ x_t + b - noise) / np.linalg.norm(noise) / len(STEPS)
    for batch_size in (2, 100):
        found = residuals(denoiser, x0, named(3), timesteps=STEPS, seed=4, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_profile_is_of_length_one_and_does_not_know_the_images_size() -> None:
    """The network says 3 x_t at both timesteps: |3 x_t - eps| = e; r = (e_1 + e_2) / (2 |e|)."""
    denoiser, x0 = SmallDenoiser(Affine()), torch.zeros(2, 1, 2, 2)
    with torch.no_grad():
        denoiser.network.weight.copy_(3 * torch.eye(4))
        denoiser.network.bias.zero_()
    steps, expected = [5, 40], []
    for i in range(2):
        e = []
        for t in steps:
            noise = QueryNoise(4).fill(torch.empty(1, 4), [(f"image-{i}", t, 0)])[0].double().numpy()
            e.append(np.linalg.norm((3 * np.sqrt(1 - denoiser.schedule.abar[t]) - 1) * noise))
        expected.append(np.mean(e) / np.hypot(*e))
    found = residuals(denoiser, x0, named(2), timesteps=steps, seed=4, profile=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights_are_left_alone_and_every_cell_is_reported() -> None:
    net = Wavy()
    denoiser, before = SmallDenoiser(net), [p.detach().clone() for p in net.parameters()]
    seen: list[int] = []
    for _ in range(2):
        gradient_features(
            denoiser, float_images(3, SHAPE), named(3), objective="loss", timesteps=STEPS, draws=2, seed=0,
            projection=Identity(parameter_count(denoiser)), chunk=4, progress=seen.append,
        )  # fmt: skip
    assert seen == [4, 4, 4, 4, 2] * 2
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, net.parameters(), strict=True))


def test_training_mode_is_refused() -> None:
    net = Wavy()
    denoiser = SmallDenoiser(net)
    net.drop.train()  # one layer is enough
    with pytest.raises(ValueError, match="evaluation mode"):
        residuals(denoiser, float_images(1, SHAPE), ["a"], timesteps=[5], seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "lost"}, "did you mean 'loss'"),
        ({"timesteps": []}, "timesteps"),
        ({"timesteps": [0]}, "timesteps"),
        ({"timesteps": [51]}, "timesteps"),
        ({"draws": 0}, "0 draws"),
    ],
)
def test_bad_requests_end_before_any_work(change: dict[str, object], message: str) -> None:
    denoiser = SmallDenoiser(Wavy())
    request: dict[str, object] = {"objective": "loss", "timesteps": [5], "seed": 0, **change}
    with pytest.raises(UsageError, match=message):
        gradient_features(
            denoiser, float_images(1, SHAPE), ["a"], projection=Identity(parameter_count(denoiser)), **request
        )  # type: ignore[arg-type]


def test_timesteps_are_the_middles_of_equal_parts() -> None:
    assert evenly_spaced(1000, 4) == [126, 376, 626, 876]
    assert evenly_spaced(5, 5) == [1, 2, 3, 4, 5]
    with pytest.raises(UsageError, match="6 timesteps"):
        evenly_spaced(5, 6)
