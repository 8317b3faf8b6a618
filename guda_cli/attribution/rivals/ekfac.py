"""`ekfac`: influence functions with an eigenvalue-corrected Kronecker-factored curvature.

George et al. 2018 (arXiv 1806.03884); Grosse et al. 2023 (arXiv 2308.03296); for diffusion models Mlodozeniec
et al. 2025 (arXiv 2410.13850). The curvature is the generalised Gauss-Newton matrix of the denoising loss:
its residuals are drawn from the model (random signs, with the Gaussian's second moments), not observed.

Plain torch: kronfluence 1.0 wraps the network's modules in place, indexes a data set where cells have noise
of their own, goes through the training images anew for every few queries, and brings torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guda_cli.attribution.rivals.engine import Advance, Arrays, Context, Engine, Prepared
from guda_cli.attribution.rivals.gradients import BYTES_A_PARAMETER, MEMORY, evenly_spaced, parameter_count
from guda_cli.attribution.rivals.layer_gradients import LayerGradients, Taps, layers_of, parameters_of
from guda_cli.attribution.rivals.projection import CountSketch, Projection
from guda_cli.data.queries import Query
from guda_cli.diffusion.cells import Cell, Noised, Samples, batches, cells
from guda_cli.diffusion.denoiser import squared_error
from guda_cli.diffusion.functional import how_many
from guda_cli.diffusion.noise import QueryNoise, seed_of
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError

MOST_COLUMNS = 2048
"""Of a layer's inputs in one factor; wider layers have several, as if independent (Grosse et al. 2023)."""

Found = Iterable[tuple[str, LayerGradients]]
"""The gradients of one batch, layer by layer."""
Value = Callable[[Tensor, Noised, Sequence[Cell]], Tensor]
"""From the raw prediction for a batch, of these cells, to the sum of a scalar of each sample."""


@dataclass(frozen=True, eq=False)
class Bases:
    """Eigenbases of K-FAC's factors by layer: of the inputs in runs of columns, of the outputs."""

    inputs: Mapping[str, Sequence[Tensor]]
    """[n_j, n_j], the n_j adding up to the layer's columns."""
    outputs: Mapping[str, Tensor]
    """[m, m]"""

    def turned(self, name: str, found: LayerGradients) -> Iterator[Tensor]:
        """Each sample's gradient in the basis of its layer, run by run: [B, m, n_j]."""
        outputs = (found.outputs @ self.outputs[name]).mT
        for given, basis in zip(self._runs(name, found.inputs), self.inputs[name], strict=True):
            few = given.shape[1] < outputs.shape[1]  # places, than rows of the gradient
            yield outputs @ (given @ basis) if few else (outputs @ given) @ basis

    def turned_gradients(self, name: str, gradients: Tensor) -> Iterator[Tensor]:
        """The same of gradients [K, m, n]."""
        for part, basis in zip(self._runs(name, gradients), self.inputs[name], strict=True):
            yield self.outputs[name].mT @ part @ basis

    def _runs(self, name: str, columns: Tensor) -> tuple[Tensor, ...]:
        return torch.split(columns, [len(basis) for basis in self.inputs[name]], dim=-1)


def eigenbases(passes: Iterable[Found], most: int = MOST_COLUMNS) -> Bases:
    """The eigenbases of A = sum a a^T and S = sum s s^T over all samples and places of `passes`.

    Both up to a factor, which bases do not see. A is taken in equal runs of at most `most` columns.
    Decomposed in float64 on the CPU. DataError where a factor is not finite.
    """
    inputs: dict[str, list[Tensor]] = {}
    outputs: dict[str, Tensor] = {}
    for found in passes:
        for name, each in found:
            runs = each.inputs.flatten(0, 1).tensor_split(-(-each.inputs.shape[-1] // most), dim=1)
            s = each.outputs.flatten(0, 1)
            if name not in inputs:
                inputs[name] = [run.new_zeros(run.shape[1], run.shape[1]) for run in runs]
                outputs[name] = s.new_zeros(s.shape[1], s.shape[1])
            for total, run in zip(inputs[name], runs, strict=True):
                total.addmm_(run.mT, run)
            outputs[name].addmm_(s.mT, s)
    return Bases(
        {name: [_basis(total) for total in totals] for name, totals in inputs.items()},
        {name: _basis(total) for name, total in outputs.items()},
    )


def _basis(moment: Tensor) -> Tensor:
    if not bool(torch.isfinite(moment).all()):
        raise DataError("gradients are not finite", why="the model's gradients overflow or are NaN")
    vectors: Tensor = torch.linalg.eigh(moment.cpu().double())[1]
    return vectors.to(moment)


@dataclass(frozen=True, eq=False)
class Curvature:
    """EK-FAC: in `bases` diagonal, with these `scales` [m, n_j] = (lambda + damping)^(-1/2) by layer."""

    bases: Bases
    scales: Mapping[str, Sequence[Tensor]]

    @property
    def parameters(self) -> int:
        """How many numbers a gradient has."""
        return sum(scale.numel() for scales in self.scales.values() for scale in scales)

    def whitened(self, name: str, gradients: Tensor) -> list[Tensor]:
        """(G + damping)^(-1/2) applied to gradients [K, m, n] of a layer, in its basis, run by run.

        Inner products of these are g^T (G + damping)^-1 h.
        """
        turned = self.bases.turned_gradients(name, gradients)
        return [part * scale for part, scale in zip(turned, self.scales[name], strict=True)]

    def arrays(self) -> Arrays:
        """As arrays to store."""
        out = {f"outputs/{name}": basis for name, basis in self.bases.outputs.items()}
        for kind, of in (("inputs", self.bases.inputs), ("scales", self.scales)):
            out |= {f"{kind}/{name}/{j}": part for name, parts in of.items() for j, part in enumerate(parts)}
        return {name: value.cpu().numpy() for name, value in out.items()}

    @staticmethod
    def of_arrays(arrays: Arrays, names: Iterable[str], device: torch.device) -> Curvature:
        """The inverse of `arrays`; layers stand in the order of `names`."""

        def runs(kind: str, name: str) -> list[Tensor]:
            count = sum(key.rpartition("/")[0] == f"{kind}/{name}" for key in arrays)
            return [torch.from_numpy(arrays[f"{kind}/{name}/{j}"]).to(device) for j in range(count)]

        known = [name for name in names if f"outputs/{name}" in arrays]
        outputs = {name: torch.from_numpy(arrays[f"outputs/{name}"]).to(device) for name in known}
        bases = Bases({name: runs("inputs", name) for name in known}, outputs)
        return Curvature(bases, {name: runs("scales", name) for name in known})


def curvature(bases: Bases, passes: Iterable[Found], count: int, damping: float) -> Curvature:
    """EK-FAC's eigenvalues: the mean over `count` samples of squared gradients in the eigenbasis.

    (George et al. 2018, section 3.) `passes` are again of residuals drawn from the model. `damping` counts
    in means of a layer's eigenvalues, as layers differ by orders of magnitude; 1 where all are zero.
    """
    values = {
        name: [basis.new_zeros(len(bases.outputs[name]), len(basis)) for basis in of]
        for name, of in bases.inputs.items()
    }
    for found in passes:
        for name, each in found:
            for total, turned in zip(values[name], bases.turned(name, each), strict=True):
                total.add_(turned.square_().sum(0), alpha=1.0 / count)
    return Curvature(bases, {name: _scales(of, damping) for name, of in values.items()})


def _scales(values: Sequence[Tensor], damping: float) -> list[Tensor]:
    mean = sum(float(part.double().sum()) for part in values) / sum(part.numel() for part in values)
    return [(part + (damping * mean or 1.0)).rsqrt() for part in values]


def whitened_features(
    curve: Curvature, passes: Iterable[tuple[Noised, Found]], images: int, project: Projection
) -> Tensor:
    """Sums [images, d], float32 on the CPU, over each image's cells of whitened, projected gradients."""
    out = torch.zeros(images, project.dims)
    for batch, found in passes:
        rows, places = torch.unique(batch.rows, return_inverse=True)
        parts: list[Tensor] = []
        for name, each in found:
            gradients = each.each()
            totals = gradients.new_zeros(len(rows), *gradients.shape[1:])
            totals.index_add_(0, places.to(totals.device), gradients)
            parts += curve.whitened(name, totals)
        out.index_add_(0, rows, project(parts).float().cpu())
    if not bool(torch.isfinite(out).all()):
        raise DataError("gradients are not finite", why="the model's gradients overflow or are NaN")
    return out


class Ekfac(Engine):
    """The score of image i is grad L(q)^T (G + damping)^-1 grad L(i): how much i's removal raises L(q).

    L is the loss of training, its gradient the mean over timesteps and draws of noise; G its Gauss-Newton
    matrix at the same timesteps, of the first draw (it is a mean over all images already). Linear layers and
    convolutions take part, in text-to-image models the keys and values of cross-attention; all other
    parameters (normalisations, embeddings) count as fixed. Whitened gradients are projected (`CountSketch`),
    which keeps their inner products in expectation. Where training mirrored images, a training image's
    gradient is the mean of its two orientations'.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.model, self.denoiser = context.model, context.model.denoiser
        if any(module.training for module in self.denoiser.network.modules()):
            raise ValueError("gradients are of a network in evaluation mode: call eval() first")
        self.layers = layers_of(self.denoiser.network, self.model.moves)
        self.seed, self.draws = int(self.values["seed"]), int(self.values["draws"])
        self.timesteps = evenly_spaced(self.denoiser.schedule.T, int(self.values["timesteps"]))
        self.cells = len(self.timesteps) * self.draws
        bytes_each = BYTES_A_PARAMETER * parameters_of(self.layers)
        self.chunk = how_many(bytes_each, MEMORY, self.model.batch_size)

    def expected_forwards(self) -> int:
        """See `Engine`: a forward and a backward for bases, for eigenvalues and for features."""
        images = len(self.context.digests) * (1 + self.model.flip)
        return 3 * images * (2 * len(self.timesteps) + self.cells)

    def prepare(self, advance: Advance) -> Prepared:
        """Eigenbases, scales, and features [N, d] of the pool."""
        pool = self.model.seen
        bases, drawn = (
            eigenbases(found for _, found in self._passes(pool, self._drawn, advance, 1)),
            (found for _, found in self._passes(pool, self._drawn, advance, 1)),
        )
        count, damping = len(pool) * len(self.timesteps), float(self.values["ekfac_damping"])
        curve = curvature(bases, drawn, count, damping)
        features = self._features(curve, pool, advance)
        arrays = {"features": self.model.orientations(features).mean(axis=0), **curve.arrays()}
        share = curve.parameters / parameter_count(self.denoiser)
        facts = {"layers": len(curve.scales), "share_of_parameters": share}
        return Prepared(arrays, float(self.expected_forwards()), facts)

    def scores(self, prepared: Arrays, queries: Sequence[Query]) -> tuple[Array, float]:
        """See `Engine`."""
        curve = Curvature.of_arrays(prepared, self.layers, self.denoiser.device)
        found = self._features(curve, self.model.of_queries(queries), lambda n: None).astype(np.float64)
        return found @ prepared["features"].T.astype(np.float64), 3.0 * len(queries) * self.cells

    def _features(self, curve: Curvature, samples: Samples, advance: Advance) -> Array:
        project = CountSketch(curve.parameters, int(self.values["projection"]), self.seed)
        passes = self._passes(samples, _loss, advance, self.draws)
        return np.asarray(whitened_features(curve, passes, len(samples), project) / self.cells)

    def _passes(
        self, samples: Samples, value: Value, advance: Advance, draws: int
    ) -> Iterator[tuple[Noised, Found]]:
        """All cells of `samples` up to `draws`, in batches, with the gradients of `value`."""
        timesteps = np.tile(np.asarray(self.timesteps, dtype=np.int64), (draws, 1))
        jobs = cells(samples.digests, timesteps, by_time=True)
        with Taps(self.layers) as taps, torch.enable_grad():
            for batch in batches(self.denoiser, samples, jobs, seed=self.seed, batch_size=self.chunk):
                given = (batch.x_t, batch.t) if batch.cond is None else (batch.x_t, batch.t, batch.cond)
                raw = self.denoiser.predict(*given)
                yield batch, taps.gradients(value(raw, batch, jobs[batch.where]))
                advance(3 * len(batch))

    def _drawn(self, raw: Tensor, batch: Noised, jobs: Sequence[Cell]) -> Tensor:
        """Its gradients' second moment over the residuals drawn is J^T H J, H = 2 / P that of the loss."""
        places = [(cell.digest, cell.t, cell.draw) for cell in jobs]
        signs = QueryNoise(seed_of("guda.ekfac/1", self.seed)).fill(torch.empty(raw.shape), places).sign()
        return (raw * signs.to(raw)).sum() * math.sqrt(2.0 / raw[0].numel())


def _loss(raw: Tensor, batch: Noised, jobs: Sequence[Cell]) -> Tensor:
    return squared_error(raw, batch.target).sum()
