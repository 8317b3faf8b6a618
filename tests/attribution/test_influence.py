from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from guda_cli.attribution.aggregate import group_scores, parse_aggregation
from guda_cli.attribution.rivals import influence
from guda_cli.attribution.rivals.gradients import gradient_features, residuals
from guda_cli.attribution.rivals.influence import MULTIPLES, choose_ridge, mean_eigenvalue
from guda_cli.diffusion.noise import QueryNoise
from guda_cli.errors import DataError, UsageError
from tests.attribution.small_denoisers import Affine, Identity, SmallDenoiser
from tests.diffusion.tiny import float_images

Array = npt.NDArray[np.float64]
STEPS = [5, 30]
SEED = 11


def random_features(count: int, dims: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, dims))


def planted(count: int, dims: int, groups: int, noise: float, seed: int = 0) -> tuple[Array, Array]:
    """Features around one centre a group [N, d], and membership [N, G]."""
    rng = np.random.default_rng(seed)
    of = np.arange(count) % groups
    centres = rng.standard_normal((groups, dims))
    return centres[of] + noise * rng.standard_normal((count, dims)), np.eye(groups, dtype=bool)[of]


# --- the three methods against gradients and matrices written out ---


def cells(
    net: Affine, denoiser: SmallDenoiser, image: Array, digest: str
) -> list[tuple[Array, Array, Array]]:
    """(x_t, prediction, noise) of one image at each timestep, float64."""
    W, b = (value.detach().double().numpy() for value in (net.weight, net.bias))
    out = []
    for t in STEPS:
        noise = QueryNoise(SEED).fill(torch.empty(1, 4), [(digest, t, 0)])[0].double().numpy()
        abar = denoiser.schedule.abar[t]
        x = np.sqrt(abar) * image + np.sqrt(1 - abar) * noise
        out.append((x, W @ x + b, noise))
    return out


# d/d(prediction) of each objective on 4 pixels; the parameters' gradient is its outer product with (x, 1).
OUTER: dict[str, Callable[[Array, Array], Array]] = {
    "loss": lambda p, noise: 2.0 * (p - noise) / 4.0,
    "square": lambda p, noise: 2.0 * p / 4.0,
    "mean": lambda p, noise: np.full(4, 0.25),
}


def closed_form(
    net: Affine, denoiser: SmallDenoiser, x0: Array, names: list[str], objective: str, unit: bool
) -> Array:
    rows = []
    for image, digest in zip(x0, names, strict=True):
        total = np.zeros(20)
        for x, p, noise in cells(net, denoiser, image, digest):
            u = OUTER[objective](p, noise)
            gradient = np.concatenate([np.outer(u, x).ravel(), u])  # weight, then bias
            total += gradient / np.sqrt((gradient**2).sum()) if unit else gradient
        rows.append(total / len(STEPS))
    return np.array(rows)


@pytest.mark.parametrize("count", [8, 40], ids=["fewer images than parameters", "more"])
@pytest.mark.parametrize(
    ("method", "objective", "unit"),
    [("trak", "loss", False), ("d-trak", "square", False), ("das", "mean", True)],
)
def test_scores_are_the_dense_closed_form(method: str, objective: str, unit: bool, count: int) -> None:
    net = Affine()
    denoiser = SmallDenoiser(net)
    train, query = float_images(count, (1, 2, 2), 0), float_images(3, (1, 2, 2), 1)
    train_names, query_names = [f"d{i}" for i in range(count)], ["q0", "q1", "q2"]
    phi, phi_q = (
        gradient_features(
            denoiser, x0, names, objective=objective, timesteps=STEPS, seed=SEED, projection=Identity(20),
            unit_norm=unit,
        )
        for x0, names in ((train, train_names), (query, query_names))
    )  # fmt: skip
    weights = residuals(denoiser, train, train_names, timesteps=STEPS, seed=SEED) if method == "das" else None
    ridge = 0.05
    found = influence.scores(phi_q, phi, ridge, weights=weights)

    flat, flat_q = (x.double().numpy().reshape(len(x), 4) for x in (train, query))
    Phi = closed_form(net, denoiser, flat, train_names, objective, unit)
    q = closed_form(net, denoiser, flat_q, query_names, objective, unit)
    expected = q @ np.linalg.inv(Phi.T @ Phi + ridge * np.eye(20)) @ Phi.T
    if method == "das":
        r = [
            np.mean([np.linalg.norm(p - e) / np.linalg.norm(e) for _, p, e in cells(net, denoiser, *one)])
            for one in zip(flat, train_names, strict=True)
        ]
        expected = expected * np.array(r)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(6, 30), (30, 30), (70, 30)])
def test_both_ways_to_solve_are_the_explicit_inverse(shape: tuple[int, int]) -> None:
    phi, phi_q = random_features(*shape), random_features(4, shape[1], 1)
    for ridge in (1e-3, 1.0, 1e3):
        expected = phi_q @ np.linalg.inv(phi.T @ phi + ridge * np.eye(shape[1])) @ phi.T
        np.testing.assert_allclose(influence.scores(phi_q, phi, ridge), expected, rtol=1e-7, atol=1e-12)


# --- the ridge ---


@pytest.mark.parametrize("shape", [(24, 40), (60, 20)])
def test_leave_one_out_is_what_leaving_out_gives(shape: tuple[int, int]) -> None:
    phi, members = planted(*shape, groups=4, noise=1.5)
    ridge = choose_ridge(phi, members)
    y = members - members.mean(axis=0)
    y = y / y.std(axis=0)
    mean = np.linalg.eigvalsh(phi.T @ phi).clip(0).sum() / min(shape)
    for multiple, error in zip(MULTIPLES, ridge.errors, strict=True):
        missed = []
        for i in range(shape[0]):
            rest = np.arange(shape[0]) != i
            gram = phi[rest].T @ phi[rest] + multiple * mean * np.eye(shape[1])
            missed.append((y[i] - phi[i] @ np.linalg.solve(gram, phi[rest].T @ y[rest])) ** 2)
        np.testing.assert_allclose(error, np.mean(missed), rtol=1e-6)
    assert ridge.rule == "leave-one-out"
    assert ridge.multiple == MULTIPLES[int(np.argmin(ridge.errors))]
    np.testing.assert_allclose(ridge.value, ridge.multiple * mean)


def test_noisier_features_get_a_larger_ridge() -> None:
    quiet, loud = (choose_ridge(*planted(80, 30, 4, noise)) for noise in (0.02, 6.0))
    assert quiet.multiple < loud.multiple
    assert min(quiet.errors) < 0.1 < min(loud.errors)


@pytest.mark.parametrize("factor", [1e-6, 1e-2, 37.0, 1e5])
@pytest.mark.parametrize("with_groups", [True, False])
def test_scaling_the_features_leaves_the_scores(factor: float, with_groups: bool) -> None:
    phi, members = planted(50, 20, 5, noise=1.0)
    phi_q = random_features(6, 20, 2)
    groups = members if with_groups else None
    ridge, scaled = choose_ridge(phi, groups), choose_ridge(factor * phi, groups)
    assert ridge.multiple == scaled.multiple
    np.testing.assert_allclose(scaled.value, factor**2 * ridge.value, rtol=1e-9)
    plain = influence.scores(phi_q, phi, ridge.value)
    again = influence.scores(factor * phi_q, factor * phi, scaled.value)
    np.testing.assert_allclose(again, plain, rtol=1e-6, atol=1e-12)
    assert np.array_equal(np.argsort(again, axis=1), np.argsort(plain, axis=1))


def test_the_ridge_ignores_order_and_groups_everyone_is_in() -> None:
    phi, members = planted(40, 20, 4, noise=1.0)
    order = np.random.default_rng(3).permutation(40)
    everyone = np.ones((40, 1), dtype=bool)
    chosen = choose_ridge(phi, members)
    assert choose_ridge(phi[order], members[order]).multiple == chosen.multiple
    np.testing.assert_allclose(choose_ridge(phi, np.hstack([members, everyone])).errors, chosen.errors)
    assert choose_ridge(phi, everyone).rule == choose_ridge(phi).rule == "fixed"


def test_summed_scores_are_the_regression_of_the_indicator() -> None:
    """What `choose_ridge` tunes is what the bench ranks."""
    phi, members = planted(40, 20, 4, noise=1.0)
    phi_q = random_features(5, 20, 2)
    coefficients = np.linalg.solve(phi.T @ phi + 3.0 * np.eye(20), phi.T @ members)
    found = group_scores(influence.scores(phi_q, phi, 3.0), members, parse_aggregation("sum"))
    np.testing.assert_allclose(found, phi_q @ coefficients, rtol=1e-9, atol=1e-12)


def test_mean_eigenvalue_is_over_those_that_can_differ_from_zero() -> None:
    for shape in ((5, 12), (12, 5)):
        phi = random_features(*shape)
        values = np.linalg.eigvalsh(phi.T @ phi)
        np.testing.assert_allclose(mean_eigenvalue(phi), values[values > 1e-9].mean())


def test_bad_input_is_refused() -> None:
    phi = random_features(5, 4)
    for ridge in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="a ridge of"):
            influence.scores(phi, phi, ridge)
    deficient = np.ones((5, 4))
    deficient[:, 0] = 1e9
    with pytest.raises(UsageError, match="too small"):
        influence.scores(deficient, deficient, 1e-20)
    broken = phi.copy()
    broken[0, 0] = np.inf
    with pytest.raises(DataError, match="not finite"):
        influence.scores(phi, broken, 1.0)
    with pytest.raises(DataError, match="zero"):
        choose_ridge(np.zeros((3, 4)))
