"""Class-conditional networks: what the denoiser gives the network, the null class, guidance, shared noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guda_cli.diffusion import elbo, grid, sampling
from guda_cli.families.pixels import UNetDenoiser
from tests.diffusion.tiny import PREDICTIONS, FunctionDenoiser, float_images, make_schedule, make_unet

CLASSES = 3
GRID = grid.build(grid.spec("strata", 4, 2, 0), 50)
X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
T = torch.tensor([1, 7, 30, 50])
LABELS = torch.tensor([2, 0, 0, 1])


def conditional(**changes: Any) -> UNetDenoiser:
    unet = make_unet(num_class_embeds=CLASSES + 1, **changes)
    return UNetDenoiser(unet.eval(), make_schedule())


class Recorder:
    """A denoiser that keeps what it is shown and answers by class."""

    def __init__(self) -> None:
        self.schedule, self.device = make_schedule(), torch.device("cpu")
        self.seen: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        self.seen.append((x_t.clone(), t.clone(), None if cond is None else cond.clone()))
        return 0.5 * x_t if cond is None else 0.1 * (1 + cond.view(-1, 1, 1, 1)) * x_t


class TestPredict:
    def test_is_the_network_called_with_class_labels(self) -> None:
        denoiser = conditional()
        with torch.no_grad():
            expected = denoiser.network(X, T - 1, class_labels=LABELS).sample
            assert torch.equal(denoiser.predict(X, T, LABELS), expected)
            assert not torch.equal(denoiser.predict(X, T, LABELS.flip(0)), expected)

    def test_without_condition_it_is_the_last_class(self) -> None:
        denoiser = conditional()
        null = torch.full((4,), CLASSES)
        with torch.no_grad():
            expected = denoiser.network(X, T - 1, class_labels=null).sample
            assert torch.equal(denoiser.predict(X, T), expected)
            assert not torch.equal(denoiser.predict(X, T, LABELS), expected)
        assert (denoiser.embeddings, denoiser.null) == (CLASSES + 1, CLASSES)

    def test_a_network_without_null_class_needs_one(self) -> None:
        denoiser = conditional(null_class=False)
        assert denoiser.null is None
        with torch.no_grad():
            assert torch.equal(denoiser.predict(X, T, LABELS), conditional().predict(X, T, LABELS))
        with pytest.raises(ValueError, match="no null class"):
            denoiser.predict(X, T)

    def test_an_unconditional_network_takes_none(self) -> None:
        denoiser = UNetDenoiser(make_unet().eval(), make_schedule())
        assert denoiser.embeddings is denoiser.null is None
        with pytest.raises(ValueError, match="unconditional"):
            denoiser.predict(X, T, LABELS)

    @pytest.mark.parametrize("labels", [LABELS[:3], LABELS.float(), LABELS.int(), LABELS.view(-1, 1)])
    def test_labels_of_another_shape_or_type(self, labels: Tensor) -> None:
        with pytest.raises(ValueError, match="int64"):
            conditional().predict(X, T, labels)


class TestTerms:
    def test_each_image_gets_its_own_condition_in_any_packing(self) -> None:
        denoiser, x0 = conditional(), float_images(4)
        names = [f"digest-{i}" for i in range(4)]

        def terms(rows: list[int], batch_size: int) -> np.ndarray:
            return elbo.image_terms(
                denoiser, x0[rows], [names[i] for i in rows], GRID, seed=3, batch_size=batch_size,
                cond=LABELS[rows],
            )  # fmt: skip

        whole = terms([0, 1, 2, 3], 32)
        for i in range(4):
            np.testing.assert_allclose(terms([i], 32)[0], whole[i], rtol=1e-5)
        np.testing.assert_allclose(terms([2, 0, 3, 1], 3)[[1, 3, 0, 2]], whole, rtol=1e-5)

    def test_without_conditions_they_are_those_of_the_null_class(self) -> None:
        denoiser, x0 = conditional(), float_images(2)
        null = torch.full((2,), CLASSES)
        bare, given, other = (
            elbo.image_terms(denoiser, x0, ["a", "b"], GRID, seed=3, batch_size=9, cond=cond)
            for cond in (None, null, null - 1)
        )
        assert np.array_equal(bare, given)
        assert not np.array_equal(bare, other)

    def test_the_noise_is_the_same_whatever_the_condition(self) -> None:
        """Common random numbers (docs/methods.md): bit for bit, under every class and none."""
        denoiser, x0 = Recorder(), float_images(2)
        for cond in (None, torch.tensor([0, 1]), torch.tensor([2, 2])):
            elbo.image_terms(denoiser, x0, ["a", "b"], GRID, seed=3, batch_size=100, cond=cond)
        (bare, t, none), (first, t1, one), (second, t2, two) = denoiser.seen
        assert none is None
        assert one is not None
        assert two is not None
        assert torch.equal(bare, first)
        assert torch.equal(bare, second)
        assert torch.equal(t, t1)
        assert torch.equal(t, t2)
        assert one.tolist() == [0] * GRID.rows + [1] * GRID.rows
        assert two.tolist() == [2] * 2 * GRID.rows

    def test_any_condition_with_a_row_an_image_is_passed_on(self) -> None:
        """Text embeddings are such a tensor too."""
        cond = torch.randn(2, 5, 3)
        seen: list[Tensor] = []

        class Texts(Recorder):
            def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
                assert cond is not None
                seen.append(cond)
                return x_t

        elbo.image_terms(Texts(), float_images(2), ["a", "b"], GRID, seed=0, batch_size=3, cond=cond)
        assert torch.equal(torch.cat(seen), cond.repeat_interleave(GRID.rows, 0))

    def test_maps_sum_to_the_terms(self) -> None:
        denoiser, x0 = conditional(), float_images(1)
        multiplier = np.ones(51)
        for cond in (torch.tensor([1]), torch.tensor([2])):
            terms = elbo.image_terms(denoiser, x0, ["a"], GRID, seed=3, batch_size=5, cond=cond)[0]
            pixels = elbo.weighted_map(
                denoiser, x0[0], "a", GRID, multiplier, seed=3, batch_size=5, cond=cond
            )
            np.testing.assert_allclose(pixels.sum(), (terms * GRID.widths).sum() / 2, rtol=1e-5)


class TestSampling:
    @staticmethod
    def draw(denoiser: Any, rows: range = range(4), **settings: Any) -> Tensor:
        return sampling.sample(denoiser, (1, 8, 8), rows, sampler="ddim", steps=5, seed=2, **settings)

    def test_the_class_decides_the_image(self) -> None:
        denoiser = conditional()
        one, two = (self.draw(denoiser, cond=torch.full((4,), k)) for k in (0, 1))
        assert not torch.allclose(one, two, atol=1e-3)
        both = self.draw(denoiser, cond=torch.tensor([0, 1, 0, 1]))
        torch.testing.assert_close(both, torch.stack([one[0], two[1], one[2], two[3]]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            self.draw(denoiser, range(1, 2), cond=torch.tensor([1])), two[1:2], rtol=1e-4, atol=1e-5
        )

    def test_guidance_of_one_is_none_and_of_zero_the_null_class(self) -> None:
        denoiser = conditional()
        plain = self.draw(denoiser, cond=LABELS)
        assert torch.equal(self.draw(denoiser, cond=LABELS, guidance=1.0), plain)
        torch.testing.assert_close(
            self.draw(denoiser, cond=LABELS, guidance=0.0), self.draw(denoiser), rtol=1e-4, atol=1e-5
        )
        assert not torch.allclose(self.draw(denoiser, cond=LABELS, guidance=3.0), plain, atol=1e-3)

    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_guidance_by_hand(self, prediction: str) -> None:
        """eps_null + W (eps_class - eps_null), in whatever the network predicts."""
        schedule = make_schedule(prediction=prediction)

        def class_part(cond: Tensor | None) -> Tensor | float:
            return 0.0 if cond is None else 0.1 * cond.view(-1, 1, 1, 1)

        class Known(FunctionDenoiser):
            def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
                return 0.3 * x_t + class_part(cond)

        guided = FunctionDenoiser(schedule, lambda x, t: 0.3 * x + 2.5 * class_part(LABELS))
        found = self.draw(Known(schedule, lambda x, t: x), cond=LABELS, guidance=2.5)
        torch.testing.assert_close(found, self.draw(guided), rtol=1e-5, atol=1e-6)

    def test_without_guidance_the_network_runs_once_a_step(self) -> None:
        for guidance, calls in ((1.0, 5), (2.0, 10)):
            denoiser = Recorder()
            self.draw(denoiser, cond=LABELS, guidance=guidance)
            assert len(denoiser.seen) == calls
