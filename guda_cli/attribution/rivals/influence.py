"""`trak`, `d-trak` and `das`: influence scores from gradient features, and a ridge chosen without the oracle.

See docs/methods.md, Scores of groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh

from guda_cli.attribution.rivals import gradients
from guda_cli.attribution.rivals.engine import Advance, Arrays, Context, Engine, Prepared
from guda_cli.attribution.rivals.projection import CountSketch
from guda_cli.data.dataset import Mask
from guda_cli.data.queries import Query
from guda_cli.diffusion.cells import Samples
from guda_cli.diffusion.denoiser import to_x0
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError, UsageError

AnyFloat = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# Multiples of the mean eigenvalue tried by `choose_ridge`, smallest first.
MULTIPLES: tuple[float, ...] = tuple(float(m) for m in 10.0 ** np.arange(-6.0, 2.5, 0.5))
# Where no groups are given. On a briefly trained model of the 8x8 digits the leave-one-out choice is 0.1 for
# trak, 0.01 for d-trak, 0.0003 for das; this one finds the digit of held-out images nearly as often.
DEFAULT_MULTIPLE = 0.01


@dataclass(frozen=True)
class Ridge:
    """A ridge `value` = `multiple` x mean eigenvalue of Phi^T Phi, and the `rule` that chose it.

    `errors` holds the leave-one-out error at each of `MULTIPLES`, relative to that of predicting nothing;
    empty for the fixed rule.
    """

    value: float
    multiple: float
    rule: str
    errors: tuple[float, ...] = ()


def scores(queries: AnyFloat, features: AnyFloat, ridge: float, *, weights: Array | None = None) -> Array:
    """phi_q^T (Phi^T Phi + ridge I)^-1 phi_i [Q, N] for queries [Q, d] and training features Phi [N, d].

    TRAK's score of one model (Park et al. 2023, eq. 13, without its factor for a classifier's confidence);
    D-TRAK and DAS differ by the features. `weights` [N] multiply each image's score: the residual
    norms of das. float64, by Cholesky of the smaller of Phi^T Phi and Phi Phi^T. UsageError for a ridge
    that is not positive or too small to solve with; DataError for features that are not finite.
    """
    phi, phi_q = _checked(features), _checked(queries)
    if not ridge > 0.0:
        raise UsageError(f"a ridge of {ridge}", why="without a positive one the system may have no solution")
    wide = len(phi) <= phi.shape[1]
    gram = phi @ phi.T if wide else phi.T @ phi
    gram[np.diag_indices_from(gram)] += ridge
    try:
        factor = cho_factor(gram, lower=True, overwrite_a=True)
    except LinAlgError:
        raise UsageError(
            f"a ridge of {ridge:.3g} is too small", why="the features' Gram matrix is singular in float64"
        ) from None
    if wide:  # Phi (Phi^T Phi + r I)^-1 = (Phi Phi^T + r I)^-1 Phi
        found = cho_solve(factor, phi @ phi_q.T).T
    else:
        found = (phi @ cho_solve(factor, phi_q.T)).T
    if weights is not None:
        found = found * weights
    return np.asarray(found)


def mean_eigenvalue(features: AnyFloat) -> float:
    """Mean of the min(N, d) eigenvalues of Phi^T Phi that can differ from 0. DataError if all are 0."""
    phi = _checked(features)
    mean = float(np.vdot(phi, phi) / min(phi.shape))
    if mean == 0.0:
        raise DataError("every gradient feature is zero", why="the network's output depends on no parameter")
    return mean


def choose_ridge(features: AnyFloat, membership: Mask | None = None) -> Ridge:
    """The ridge for features Phi [N, d]; it sees training images and their groups, never the oracle.

    With `membership` [N, G]: scores summed over a group's images are the ridge regression of the
    group's indicator on the features, evaluated at the query: phi_q^T (Phi^T Phi + r I)^-1 Phi^T y_k. So the
    ridge is the one that predicts best, in squared error over all groups, the groups of each
    training image from all the others (exact leave-one-out, Allen 1974: residual / (1 - leverage)). The
    indicators are centred and, since groups may differ in size, scaled to one variance. Of equal
    errors the larger ridge wins.
    Without: `DEFAULT_MULTIPLE` of the mean eigenvalue.
    Both are multiples of the mean eigenvalue, so scaling all features by c scales the ridge by c^2
    and leaves the scores as they were.
    """
    mean = mean_eigenvalue(features)
    if membership is None or not _varying(membership).shape[1]:
        return Ridge(DEFAULT_MULTIPLE * mean, DEFAULT_MULTIPLE, "fixed")
    errors = _leave_one_out(_checked(features) / np.sqrt(mean), _varying(membership))
    best = len(errors) - 1 - int(np.argmin(errors[::-1]))
    return Ridge(MULTIPLES[best] * mean, MULTIPLES[best], "leave-one-out", tuple(errors.tolist()))


def _varying(membership: Mask) -> Array:
    """Centred indicators of unit variance [N, G'] of the groups that some images have and others not."""
    y = membership.astype(np.float64)
    y -= y.mean(axis=0)
    y = y[:, y.any(axis=0)]
    return np.asarray(y / y.std(axis=0))


def _leave_one_out(phi: Array, y: Array) -> Array:
    """Mean squared leave-one-out error of ridge regression of y [N, G] on phi [N, d], one a multiple."""
    if len(phi) <= phi.shape[1]:
        values, vectors = eigh(phi @ phi.T)
        rotated = vectors * np.sqrt(np.maximum(values, 0.0))
    else:
        values, vectors = eigh(phi.T @ phi)
        rotated = phi @ vectors
    leverages, targets = np.square(rotated), rotated.T @ y
    errors = []
    for multiple in MULTIPLES:
        shrunk = 1.0 / (np.maximum(values, 0.0) + multiple)
        left = 1.0 - leverages @ shrunk
        missed = (y - rotated @ (shrunk[:, None] * targets)) / left[:, None]
        errors.append(np.mean(np.square(missed)))
    return np.array(errors)


def _checked(features: AnyFloat) -> Array:
    if not np.isfinite(features).all():
        raise DataError("gradient features are not finite", why="the model's gradients overflow or are NaN")
    return features.astype(np.float64)


class Influence(Engine):
    """Gradient features of the pool and of the queries, and a ridge regression between them.

    Where training mirrored images, a training image's features are the mean of its two orientations'.
    """

    objective: str
    """What is differentiated: one of `gradients.OBJECTIVES`."""
    unit_norm = False
    """Whether each gradient is divided by its length."""
    by_residual = False
    """Whether an image's score is multiplied by its residual norm."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.model, self.denoiser = context.model, context.model.denoiser
        self.draws, self.seed = int(self.values["draws"]), int(self.values["seed"])
        self.timesteps = gradients.evenly_spaced(self.denoiser.schedule.T, int(self.values["timesteps"]))
        self.cells = len(self.timesteps) * self.draws
        parameters = gradients.parameter_count(self.denoiser)
        self.projection = CountSketch(parameters, int(self.values["projection"]), self.seed)

    def expected_forwards(self) -> int:
        """See `Engine`: a gradient is a forward and a backward; residuals add a forward."""
        images = len(self.context.digests) * (1 + self.model.flip)
        return images * self.cells * (4 if self.by_residual else 3)

    def prepare(self, advance: Advance) -> Prepared:
        """Features [N, d] of the pool, its residual norms [N] where they count, and the ridge."""
        pool, mean = self.model.seen, self._mean
        features = self._features(pool, lambda n: advance(3 * n)).astype(np.float64)
        arrays: Arrays = {"features": mean(features)}
        if self.by_residual:
            found = gradients.residuals(
                self.denoiser, to_x0(pool.images), pool.digests, timesteps=self.timesteps,
                draws=self.draws, seed=self.seed, cond=pool.labels, progress=advance,
                profile=bool(self.values.get("das_profile")),
            )  # fmt: skip
            arrays["residuals"] = mean(found)
        ridge = self._ridge(arrays["features"])
        arrays["ridge"] = np.array([ridge.value])
        arrays["features"] = arrays["features"].astype(np.float32)
        facts = {"ridge": {"multiple": ridge.multiple, "rule": ridge.rule}}
        return Prepared(arrays, float(self.expected_forwards()), facts)

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`."""
        features = self._features(self.model.of_queries(queries))
        ridge, weights = float(prepared["ridge"][0]), prepared.get("residuals")
        found = scores(features, prepared["features"], ridge, weights=weights)
        return found, 3.0 * len(queries) * self.cells

    def _mean(self, found: Array) -> Array:
        """Over the orientations of each of the pool's images."""
        return np.asarray(self.model.orientations(found).mean(axis=0))

    def _ridge(self, features: Array) -> Ridge:
        multiple = self.values["ridge"]
        if multiple is not None:
            return Ridge(multiple * mean_eigenvalue(features), multiple, "given")
        return choose_ridge(features, self.context.membership[self.context.indices])

    def _features(self, samples: Samples, advance: Advance | None = None) -> gradients.Features:
        return gradients.gradient_features(
            self.denoiser, to_x0(samples.images), samples.digests, objective=self.objective,
            timesteps=self.timesteps, draws=self.draws, projection=self.projection, seed=self.seed,
            unit_norm=self.unit_norm, cond=samples.labels, progress=advance,
        )  # fmt: skip


class Trak(Influence):
    """Of the denoising loss (Park et al. 2023)."""

    objective = "loss"


class DTrak(Influence):
    """Of the network's squared output (Zheng et al. 2024)."""

    objective = "square"


class Das(Influence):
    """Of the network's mean output, each gradient of unit length, times the residuals (Lin et al. 2025).

    With `das_squared` the squares of these scores, the authors' variant for a change of the squared output.
    """

    objective = "mean"
    unit_norm = True
    by_residual = True

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`."""
        found, cost = super().scores(prepared, queries)
        return (np.square(found) if self.values.get("das_squared") else found), cost
