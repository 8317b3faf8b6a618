"""What families of flow matching share: even levels of noise, and a transformer that is told them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from guda_cli.errors import DataError
from guda_cli.families.diffusers_pipeline import PipelineFamily
from guda_cli.families.family import Wanted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from guda_cli.diffusion.prompt_bank import PromptBank
    from guda_cli.diffusion.schedule import Schedule

SCHEDULER = "FlowMatchEulerDiscreteScheduler"


class FlowFamily(PipelineFamily):
    """A pipeline whose network predicts the flow from image to noise (Liu et al. 2023, Lipman et al. 2023).

    Whatever shift its sampler has, scores are of even levels s = t / T: x_t = (1 - s) x0 + s noise.
    """

    network = "transformer"
    adapter: ClassVar[type[FlowDenoiser]]
    """How the network is asked."""

    def denoiser(self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank | None) -> FlowDenoiser:
        """See `Family`."""
        assert bank is not None
        return self.adapter(network, schedule, bank)

    def prediction(self, config: Mapping[str, Any]) -> str:
        """See `Family`."""
        return "flow"

    def schedule(self, config: Mapping[str, Any]) -> Schedule:
        """See `Family`."""
        from guda_cli.diffusion.schedule import flow_matching

        return flow_matching(int(config.get("num_train_timesteps") or 1000))

    def read_scheduler(self, config: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """See `PipelineFamily`."""
        name = config.get("_class_name")
        if name != SCHEDULER:
            raise DataError(
                f"{where}: the noise schedule is a {name}",
                why="that of a model distilled to a few steps, whose likelihood bound means nothing"
                if any(mark in str(name) for mark in ("LCM", "TCD"))
                else f"this pipeline has a {SCHEDULER}",
            )
        steps = config.get("num_train_timesteps", 1000)
        if not isinstance(steps, int) or isinstance(steps, bool) or not 3 <= steps <= 100_000:
            raise DataError(f"{where}: the noise schedule has num_train_timesteps = {steps!r:.40}")
        return dict(config), ()

    def _check_fits(
        self, config: Mapping[str, Any], vae: Mapping[str, Any], wanted: Wanted
    ) -> tuple[str, ...]:
        if vae.get("shift_factor") is None and self.vae.classes == ("AutoencoderKL",):
            raise DataError(
                "the pipeline's VAE has no shift_factor",
                why=f"networks of {self.name} are trained on latents (z - shift_factor) x scaling_factor: "
                "this VAE is another model's, or its config.json is not complete",
                fix="take the vae folder of the model that the network was made from",
            )
        return super()._check_fits(config, vae, wanted)


class FlowDenoiser(ABC):
    """A network of flow matching; see `Denoiser`. `predict` takes prompt indices int64 [N].

    Subclasses ask the network: `ask(x_t, s, rows)`, with s [N] in (0, 1], all in the network's dtype.
    """

    null: int | None = 0
    """Index of the empty prompt."""

    def __init__(self, network: torch.nn.Module, schedule: Schedule, bank: PromptBank) -> None:
        self.network, self.schedule, self.bank = network, schedule, bank
        first = next(network.parameters())
        self.dtype, self.device = first.dtype, first.device
        self.beside: Mapping[str, Any] = network.beside  # type: ignore[assignment]

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """See `Denoiser.predict`."""
        rows = {
            name: values.to(self.dtype) if values.is_floating_point() else values
            for name, values in self.bank.told(cond, t).items()
        }
        levels = (t.float() / self.schedule.T).to(self.dtype)
        return self.ask(x_t.to(self.dtype), levels, rows).float()

    @abstractmethod
    def ask(self, x_t: Tensor, s: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """The network's flow [N, C, H, W], noise minus image."""


def packed(x: Tensor) -> Tensor:
    """x [N, C, H, W] as one token for each 2 x 2 places, [N, H/2 W/2, 4 C]."""
    n, channels, height, width = x.shape
    tokens = x.view(n, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return tokens.reshape(n, (height // 2) * (width // 2), 4 * channels)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `packed`: [N, C, H, W]."""
    n, _, channels = tokens.shape
    x = tokens.view(n, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(n, channels // 4, height, width)
