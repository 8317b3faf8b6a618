"""What peft's configuration of a LoRA says of its scales and of how its factors were started."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guda_cli.checkpoints.adapter_kinds import MERGE, ONLY
from guda_cli.errors import DataError

SUBTRACTED = ("pissa", "olora")
"""Initialisations whose first product is taken from the base, by peft again when it loads such a LoRA."""

_UNTOUCHED = ("gaussian", "eva", "orthogonal", "mica")  # these leave the base as it is
_METHODS = {
    "ADALORA": "AdaLoRA", "BOFT": "BOFT", "GLORA": "GLoRA", "IA3": "(IA)^3", "LOHA": "LoHa", "LOKR": "LoKr",
    "OFT": "OFT", "VERA": "VeRA", "XLORA": "X-LoRA", "LN_TUNING": "trained norms (LN tuning)",
}  # fmt: skip
_READ = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights", "target_modules",
    "peft_type",
}  # fmt: skip
_NOTHING = {  # what does not change the weights that a LoRA is merged into, or is told by its tensors
    "auto_mapping", "base_model_name_or_path", "base_model_class", "bias", "corda_config",
    "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config",
    "megatron_core", "merge_weights", "parent_library", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "task_type", "transformers_version",
}  # fmt: skip
_NAMED = {"use_dora": "DoRA", "enable_lora": "a LoRA of merged layers"}
_SECONDS = 5.0  # for all regular expressions of a file: they can take for ever
_LENGTH = 200_000  # of all of them together, in characters
_PLAIN = re.compile(r"\^?(?:[\w-]|\.|\\\.)*")  # such an expression is matched in a moment


@dataclass(frozen=True)
class LoraConfig:
    """The settings of a LoRA that its merged weights depend on, with peft's defaults."""

    where: str
    """The file they are of, for messages."""
    r: int = 8
    alpha: float = 8.0
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False
    init: str = ""
    """An initialisation in `SUBTRACTED`, "" for those that leave the base as it is."""
    targets: str | tuple[str, ...] = ()
    """A regular expression of the modules it is for, or ends of their names; () where that is not said."""

    def scales(self, modules: Mapping[str, int]) -> dict[str, float]:
        """alpha / r by module (alpha / sqrt(r) where rank-stabilised); `modules` have the ranks of factors.

        DataError where a module's rank is another than the settings say or it is none of their targets, and
        where regular expressions are none or take too long.
        """
        ranks = first_matches(self.rank_pattern, modules, self.where)
        alphas = first_matches(self.alpha_pattern, modules, self.where)
        self._check_targets(modules)
        out = {}
        for module, rank in modules.items():
            said = self.rank_pattern[ranks[module]] if module in ranks else self.r
            if said != rank:
                raise DataError(
                    f"{self.where}: the rank of {module} is {said}, its factors have rank {rank}",
                    why="the configuration is not that of these tensors",
                    fix="give the folder as it was saved",
                )
            alpha = self.alpha_pattern[alphas[module]] if module in alphas else self.alpha
            out[module] = alpha / (math.sqrt(rank) if self.rank_stabilised else rank)
        return out

    def _check_targets(self, modules: Mapping[str, int]) -> None:
        targets = self.targets
        if not targets or targets == "all-linear":
            return
        if isinstance(targets, str):
            found = set(first_matches({targets: 0}, modules, self.where, whole=True))
        else:
            ends = tuple(f".{name}" for name in targets)
            found = {name for name in modules if any(f".{n}".endswith(ends) for n in _both(name))}
        strangers = sorted(modules.keys() - found)
        if strangers:
            raise DataError(
                f"{self.where}: {strangers[0]} is none of its target_modules",
                why="peft leaves out such factors, so the file and its configuration are of two adapters",
                fix="give the folder as it was saved",
            )


def read_config(values: Mapping[str, Any], where: str) -> LoraConfig:
    """The settings in `values`, an adapter_config.json of peft or its like; `where` names it in messages.

    DataError for another method than LoRA, for settings under which the merged weights are not
    W + (alpha / r) B A or not determined, and for values of a wrong type.
    """
    kind = values.get("peft_type")
    if kind is not None and str(kind).upper() != "LORA":
        shown = _METHODS.get(str(kind).upper(), f"peft's {_shown(kind)}")
        raise DataError(f"{where} is not of a plain LoRA but of {shown}", why=ONLY, fix=MERGE)
    for key, value in values.items():
        if key in _NAMED and value:
            raise DataError(f"{where} is not of a plain LoRA but of {_NAMED[key]}", why=ONLY, fix=MERGE)
        if key not in _READ | _NOTHING and not key.startswith("_") and value:
            raise DataError(f"{where} has {_shown(key)} = {_shown(value)}", why=ONLY, fix=MERGE)
    stabilised = values.get("use_rslora")
    if stabilised not in (None, True, False):
        raise _wrong(where, "use_rslora", stabilised, "true or false")
    return LoraConfig(
        where=where,
        r=_rank(where, "r", values.get("r", 8)),
        alpha=_number(where, "lora_alpha", values.get("lora_alpha", 8)),
        rank_pattern={k: _rank(where, "rank_pattern", v) for k, v in _map(where, "rank_pattern", values)},
        alpha_pattern={
            k: _number(where, "alpha_pattern", v) for k, v in _map(where, "alpha_pattern", values)
        },
        rank_stabilised=bool(stabilised),
        init=_init(where, values.get("init_lora_weights", True)),
        targets=_targets(where, values.get("target_modules")),
    )


def first_matches(
    patterns: Mapping[str, object], modules: Mapping[str, object], where: str, *, whole: bool = False
) -> dict[str, str]:
    """The first of peft's `patterns` that each module matches, by the modules that match one.

    A pattern is a regular expression of the name from any dot on, or of the `whole` name. A text encoder's
    names may begin with `text_model.` (transformers < 5.6) or not. DataError for what is no expression.
    """
    if not patterns or not modules:
        return {}
    if sum(map(len, patterns)) > _LENGTH:
        raise DataError(f"{where}: its regular expressions have more than {_LENGTH:,} characters")
    names = {both: name for name in modules for both in _both(name)}
    expressions = [rf"(?:{key})\Z" if whole else rf"(.*\.)?({key})$" for key in patterns]
    simple = all(map(_PLAIN.fullmatch, patterns))
    lists = _here(expressions, list(names)) if simple else _apart(expressions, list(names), where)
    out: dict[str, str] = {}
    for key, found in zip(patterns, lists, strict=True):
        for name in found:
            out.setdefault(names[name], key)
    return out


def _both(module: str) -> tuple[str, ...]:
    return (module, f"text_model.{module}") if module.startswith("encoder.") else (module,)


def _here(expressions: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    compiled = map(re.compile, expressions)
    return [[name for name in names if expression.match(name)] for expression in compiled]


_CHILD = """
import json, re, sys
expressions, names = json.load(sys.stdin)
try:
    found = [[n for n in names if e.match(n)] for e in map(re.compile, expressions)]
except (re.error, RecursionError, OverflowError, MemoryError) as err:
    sys.exit(f"no regular expression: {err}")
json.dump(found, sys.stdout)
"""


def _apart(expressions: Sequence[str], names: Sequence[str], where: str) -> list[list[str]]:
    """As `_here`, in a process that can be ended: an expression of a few characters can take for ever."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", _CHILD],
            input=json.dumps([expressions, names]),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{where}: its regular expressions take too long",
            why=f"more than {_SECONDS:.0f} s for the names of {len(names)} modules",
            fix="write the modules' names in their place",
        ) from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["they cannot be matched"])[-1]
        raise DataError(f"{where}: one of its patterns cannot be used", why=why[:200])
    found: list[list[str]] = json.loads(done.stdout)
    return found


def _init(where: str, value: object) -> str:
    """The initialisation, "" where it leaves the base as it is; DataError where merging is not determined."""
    if isinstance(value, bool) or value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(where, "init_lora_weights", value, "true, false or a name")
    name = value.lower()
    if name in _UNTOUCHED:
        return ""
    if name in SUBTRACTED:
        return name
    raise DataError(
        f"{where}: the LoRA was started by {_shown(value)} (init_lora_weights)",
        why="such factors replace a part of the base that cannot be worked out from the files",
        fix="save it again with peft's path_initial_model_for_weight_conversion, or merge it",
    )


def _targets(where: str, value: object) -> str | tuple[str, ...]:
    if value is None or isinstance(value, str):
        return value or ()
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise _wrong(where, "target_modules", value, "names or a regular expression")


def _map(where: str, key: str, values: Mapping[str, Any]) -> list[tuple[str, object]]:
    value = values.get(key)
    if value is None:
        return []
    if not isinstance(value, dict):
        raise _wrong(where, key, value, "an object of names and numbers")
    return list(value.items())


def _rank(where: str, key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(where, key, value, "a whole number from 1 on")
    return value


def _number(where: str, key: str, value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9:
        return float(value)
    raise _wrong(where, key, value, "a number")


def _wrong(where: str, key: str, value: object, wanted: str) -> DataError:
    return DataError(
        f"{where}: {key} is {_shown(value)}", why=f"{wanted} is needed", fix="give the folder as it was saved"
    )


def _shown(value: object) -> str:
    text = json.dumps(value, default=str) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."
