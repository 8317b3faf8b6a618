"""A proposal as a recipe file: what differs from the defaults, each entry with its reason."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from guda_cli.sections import Recipe, to_dict
from guda_cli.workflow.starting.proposal import Proposal

ALWAYS = ("operator", "neighbours", "timesteps", "draws")  # worth seeing though they are defaults
_REFUSED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # by YAML, or by editors
ADVICE = (
    "guda run does everything, and goes on where it was; guda status says what is there.",
    "guda recipes show folder explains every entry that may be added.",
)


def text_of(proposal: Proposal, path: Path) -> str:
    """The YAML text of a recipe that will lie at `path`, from where the images' path counts."""
    made, usual = to_dict(proposal.recipe), to_dict(Recipe())
    made["data"]["path"] = _relative(made["data"]["path"], path)
    made["data"]["group"] = (
        made["data"]["group"][0] if len(made["data"]["group"]) == 1 else made["data"]["group"]
    )
    lines = [f"# {made['description']}, proposed by `init`.", *(f"# {line}" for line in ADVICE)]
    lines += [f"{name}: {_quoted(made[name])}" for name in ("name", "description")]
    for section, values in made.items():
        if not isinstance(values, dict) or section == "attribution":
            continue
        entries = [
            _line(name, value, proposal.reasons.get(f"{section}.{name}"))
            for name, value in values.items()
            if value != usual[section][name] or name in ALWAYS or f"{section}.{name}" in proposal.reasons
        ]
        if entries:
            lines += ["", f"{section}:", *entries]
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any, reason: str | None) -> str:
    text = f"  {name}: {_quoted(value)}"
    return f"{text:<44}# {reason}" if reason else text


def _quoted(value: Any) -> str:
    """`value` as JSON that YAML reads as the same: characters that YAML does not take are escaped."""
    return _REFUSED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _relative(data: str, path: Path) -> str:
    """`data` from the folder of the recipe at `path`, unless that leads up to the root."""
    found = os.path.relpath(Path(data).resolve(), path.resolve().parent)
    return str(Path(data).resolve()) if Path(found).parts[:3] == ("..",) * 3 else found
