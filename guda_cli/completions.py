"""What a shell may put in place of a half-typed word: methods, operators, settings, groups, records.

Nothing here imports more than tables of names, writes, or fails: an error would land in the prompt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import Any

from guda_cli import typed_number
from guda_cli.plain_text import printable

Completer = Callable[[str], list[str]]

GRIDS = ("strata", "strata:even", "all", "stride:10")
WEIGHTINGS = ("min-snr:5", "elbo", "uniform", "band:1-100")
AGGREGATES = ("mean", "sum", "max", "top:5")
PARAMS = ("full", "attn", "cross-attn-kv", "lora:4")
SAMPLERS = ("ddim", "ddpm")
RANKS = ("auto", "score", "z", "per-image")
# Entries of a recipe that are one of a few words; others are completed by what they are now.
_CHOICES: dict[str, Sequence[str]] = {
    "unlearn.params": PARAMS,
    "unlearn.retain": ("denoise", "distill"),
    "train.params": PARAMS,
    "train.lr_schedule": ("constant", "cosine"),
    "train.mixed_precision": ("no", "bf16", "fp16"),
    "score.grid": GRIDS,
    "score.weighting": WEIGHTINGS,
    "score.dtype": ("auto", "float32", "bfloat16", "float16"),
    "sample.sampler": SAMPLERS,
    "attribution.aggregate": AGGREGATES,
    "attribution.encoder": ("pixels",),
    "diffusion.beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"),
    "diffusion.prediction_type": ("epsilon", "v_prediction", "sample"),
    "latent.posterior": ("mean", "sample"),
}
_BREAKS = "=:"  # where bash ends a word
_TOKEN = re.compile(r"""(?:[^\s"'\\]|\\.|"[^"]*"?|'[^']*'?)+""")
_SPECIAL = re.compile(r"""([\s'"\\$`&;|<>()*?!\[\]{}#~])""")


def one_of(names: Sequence[str] | Callable[[], Iterable[str]]) -> Completer:
    """Completes one of these words."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in quietly(lambda: list(_known(names))) if name.startswith(incomplete)]

    return complete


def several_of(names: Sequence[str] | Callable[[], Iterable[str]]) -> Completer:
    """Completes the last of several words that commas part; none twice."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        found = quietly(lambda: list(_known(names)))
        return [f"{before}{comma}{n}" for n in found if n.startswith(last) and n not in taken]

    return complete


def _known(names: Sequence[str] | Callable[[], Iterable[str]]) -> Iterable[str]:
    return names() if callable(names) else names


def methods() -> list[str]:
    """Every method of `guda score`."""
    from guda_cli.attribution import methods as table

    return table.names()


def operators() -> list[str]:
    """Every operator of `guda unlearn`."""
    from guda_cli.unlearning import catalog

    return catalog.names()


def settings(incomplete: str) -> list[str]:
    """`section.key=`, and where only one entry is left, its values: choices, or what is usual."""
    return quietly(lambda: _settings(incomplete))


def tuned(incomplete: str) -> list[str]:
    """Entries of `unlearn` with values to try, for `guda tune --space`."""
    found = quietly(lambda: [entry for entry in _settings("unlearn.") if entry.endswith("=")])
    return [entry for entry in found if entry.startswith(incomplete)]


def _settings(incomplete: str) -> list[str]:
    usual = dict(_entries())
    key, given, _ = incomplete.partition("=")
    if not given:
        found = [f"{name}=" for name in usual if name.startswith(incomplete)]
        if len(found) != 1:
            return found
        key = found[0].removesuffix("=")
    if key not in usual:
        return []
    return [entry for value in _values(key, usual[key]) if (entry := f"{key}={value}").startswith(incomplete)]


def _entries() -> Iterator[tuple[str, Any]]:
    """Every setting of a recipe and its default."""
    from guda_cli.sections import Recipe

    recipe = Recipe()
    for section in dataclasses.fields(Recipe):
        values = getattr(recipe, section.name)
        if dataclasses.is_dataclass(values):
            names = (f.name for f in dataclasses.fields(values) if f.name != "options")
            yield from ((f"{section.name}.{name}", getattr(values, name)) for name in names)


def _values(key: str, usual: Any) -> list[str]:
    if key == "unlearn.operator":
        return operators()
    if key in _CHOICES:
        return list(_CHOICES[key])
    if isinstance(usual, bool):
        return ["true", "false"]
    if isinstance(usual, tuple):
        return [f"[{','.join(map(str, usual))}]"]
    if isinstance(usual, float):  # as YAML reads it: 0.0003, not 3e-4
        return [f"{usual:.10f}".rstrip("0").rstrip(".") or "0"]
    plain = re.fullmatch(r"[\w./-]+", str(usual))  # what needs no quotes in YAML and in a shell
    return ["null"] if usual is None else [str(usual)] if plain else []


def joint(names: Sequence[str], incomplete: str) -> list[str]:
    """Groups, also behind those that a `+` joins them to."""
    whole = [name for name in names if name.startswith(incomplete)]
    before, plus, last = incomplete.rpartition("+")
    if whole or not plus:
        return whole
    taken = before.split("+")
    return [f"{before}+{name}" for name in names if name.startswith(last) and name not in taken]


def quietly(find: Callable[[], list[Any]]) -> list[Any]:
    """What `find` finds, but no name with characters that a terminal obeys; nothing when it fails."""
    try:
        found = find()
        return [one for one in found if not isinstance(one, str) or printable(one) == one]
    except Exception:  # noqa: BLE001
        return []


# -- bash ends words at `=` and `:` --------------------------------------------------------------------


def in_bash(environ: MutableMapping[str, str], complete: Callable[[], int]) -> tuple[int, str]:
    """Run typer's completion for bash on whole words; its exit code, and what bash is to be told.

    Bash takes `unlearn.lr=1` for three words, hands them over as such, and puts a reply behind the last
    mark: so words are joined before, and what stands before the mark is taken off the replies.
    """
    words, at = _joined(environ.get("COMP_WORDS", ""), typed_number.whole(environ.get("COMP_CWORD", "")) or 0)
    environ["COMP_WORDS"] = " ".join(words)
    environ["COMP_CWORD"] = str(at)
    word = words[at] if at < len(words) else ""
    value = word.partition("=")[2] if word.startswith("--") else word
    cut = max(value.rfind(mark) for mark in _BREAKS) + 1
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            code = complete()
        except SystemExit as end:
            code = int(end.code or 0)
    quoted = word[:1] in ("'", '"')
    lines = [line[cut:] for line in printed.getvalue().splitlines()]
    shown = lines if quoted else [_SPECIAL.sub(r"\\\1", line) for line in lines]
    return code, "".join(f"{line}\n" for line in shown)


def _joined(text: str, at: int) -> tuple[list[str], int]:
    """The words of a line, those put together that a mark parts, and the place of the one to complete."""
    tokens = _TOKEN.findall(text)
    if at >= len(tokens):
        tokens += [""] * (at + 1 - len(tokens))
    words: list[str] = []
    place, open_mark = 0, False
    for index, token in enumerate(tokens):
        mark = bool(token) and not token.strip(_BREAKS)
        if words and index and (mark or open_mark) and token != "":
            words[-1] += token
        else:
            words.append(token)
        open_mark = mark and index > 0
        if index == at:
            place = len(words) - 1
    return words, place
