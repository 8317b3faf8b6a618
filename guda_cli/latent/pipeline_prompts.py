"""Prompts as a pipeline of diffusers encodes them: its own class with its own encoders, and no more."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guda_cli.checkpoints.components import PartsRead
from guda_cli.checkpoints.pipeline_parts import Part, load_part, quiet_libraries
from guda_cli.diffusion.prompt_bank import Rows, lengthened
from guda_cli.light_imports import light_import

BATCH = 16  # texts encoded at once

Embed = Callable[[Any, Sequence[str], torch.device], Rows]
"""What a pipeline with its encoders makes of texts: named rows [n, ...]; where "mask" [n, L] is among them,
"text" [n, L, D] counts where it is true, and L is as long as the longest text."""


def pipeline_with(where: str, given: Mapping[str, Any]) -> Any:
    """A pipeline of the class at `where` ("module:Class") with these components, and none else."""
    module, _, name = where.partition(":")
    made_of = getattr(light_import(module), name)
    wanted = inspect.signature(made_of.__init__).parameters.values()
    needed = {one.name: None for one in wanted if one.name != "self" and one.default is one.empty}
    return made_of(**{**needed, **given})


def joined(parts: Sequence[Rows]) -> dict[str, Tensor]:
    """Rows one after the other, on the CPU; texts of a mask are filled up to the longest."""
    if "mask" not in parts[0]:
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    longest = max(part["mask"].shape[1] for part in parts)
    return {
        name: torch.cat([lengthened(part[name], longest, name) for part in parts]).cpu() for name in parts[0]
    }


class PipelinePrompts:
    """See `PromptEncoder`: text encoders and tokenizers of a pipeline, in float32 on `device`.

    `limits` says how many tokens each tokenizer's prompt may have, `settings` what else the pipeline is made
    with.
    """

    def __init__(
        self,
        where: str,
        made_of: Sequence[Part],
        parts: PartsRead,
        device: torch.device,
        embed: Embed,
        limits: Mapping[str, int],
        settings: Mapping[str, Any],
    ) -> None:
        found = {part.name: load_part(part, parts) for part in made_of}
        for part in made_of:
            if not part.is_text and found[part.name] is not None:
                found[part.name].to(device)
        with quiet_libraries():
            self.pipeline = pipeline_with(where, {**found, **settings})
        self.device, self._embed, self._limits = device, embed, limits
        self._tokenizers = {part.name: found[part.name] for part in made_of if part.is_text}

    @quiet_libraries()  # what of a prompt is not read is told by `cut`
    @torch.inference_mode()
    def rows(self, texts: Sequence[str]) -> Rows:
        """See `PromptEncoder`."""
        if not texts:
            return {name: value[:0] for name, value in self.rows([""]).items()}
        parts = [
            self._embed(self.pipeline, list(texts[start : start + BATCH]), self.device)
            for start in range(0, len(texts), BATCH)
        ]
        return joined(parts)

    def unit_embeddings(self, texts: Sequence[str]) -> Tensor:
        """See `PromptEncoder`: the pooled text, or the mean over the tokens that are not padding."""
        rows = self.rows(texts)
        if "pooled" in rows:
            found = rows["pooled"]
        elif "mask" in rows:
            mask = rows["mask"].float()[..., None]
            found = (rows["text"] * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        else:
            found = rows["text"].mean(1)
        return torch.nn.functional.normalize(found.float(), dim=-1)

    def cut(self, texts: Sequence[str]) -> dict[str, str]:
        """See `PromptEncoder`: what the tokenizer that reads the most does not read."""
        return {text: lost for text in texts if (lost := self._lost(text))}

    def _lost(self, text: str) -> str | None:
        lost: list[str] = []
        for name, tokenizer in self._tokenizers.items():
            if tokenizer is None or name not in self._limits:
                continue
            own = tokenizer(text, add_special_tokens=False).input_ids
            room = self._limits[name] - tokenizer.num_special_tokens_to_add()
            if len(own) <= room:
                return None
            lost.append(tokenizer.decode(own[room:]).strip())
        return min(lost, key=len) if lost else None
