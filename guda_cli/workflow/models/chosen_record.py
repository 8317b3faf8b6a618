"""Records by what they are called (`full model`, `without digit-3, seed 2`) or by their keys. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from guda_cli.errors import DataError, nearest
from guda_cli.phrases import few
from guda_cli.store import ActionRecord, Store
from guda_cli.workflow.keys.operations import REGISTER, TRAIN, UNLEARN
from guda_cli.workflow.keys.removal import Removal

SHORT = 12  # digits of a key that are shown
_KEY = re.compile(r"[0-9a-f]{1,64}", re.IGNORECASE)
_LISTED = 8


def find(
    store: Store, text: str, needed: Callable[[], Collection[str]], among: Collection[str] | None = None
) -> ActionRecord:
    """The one record that `text` names, or whose key begins with it.

    Of several with one name it is that which the current recipe needs (`needed` gives those keys), and which
    has the recipe's own seed. A model
    `without` a group is the unlearned one where there is one, as in `guda sample --without`, else the
    retrained one. DataError where none or several are meant; `among` are the keys that count, if not all.
    """
    records = [record for record in store.records() if among is None or record.key in among]
    wanted = _plain(text)
    subject = wanted.removeprefix("without ")
    found = [record for record in records if wanted in map(_plain, names_of(record))]
    if not found and _KEY.fullmatch(text):
        if among is None:
            return store.resolve(text)
        found = [record for record in records if record.key.startswith(text.lower())]
    if not found:
        raise _unknown(text, records)
    if len(found) > 1 and wanted.startswith("without "):
        found = [r for r in found if r.operation == UNLEARN] or found
    if len(found) > 1:
        keys = needed()
        found = [record for record in found if record.key in keys] or found
    if len(found) > 1:  # of several seeds the recipe's own goes without a number
        found = [r for r in found if _plain(_what(r)) in (wanted, f"unlearn {subject}")] or found
    if len(found) > 1:
        raise DataError(
            f"'{text}' names {len(found)} records",
            why="; ".join(map(described, found[:_LISTED]))
            + (f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""),
            fix=f"guda store show {found[-1].key[:SHORT]}",
        )
    return found[0]


def names_of(record: ActionRecord) -> list[str]:
    """All that a record may be called, the usual name first."""
    what = _what(record)
    removal = Removal.of(record.params.get("without"))
    if removal is None:
        return [what, "full model", "full"] if record.operation in (TRAIN, REGISTER) else [what]
    kinds = {UNLEARN: ("unlearn", "without"), TRAIN: ("model without", "without")}.get(record.operation, ())
    subjects = dict.fromkeys((removal.short, removal.typed))
    plain = [f"{kind} {subject}" for kind in kinds for subject in subjects]
    seed = _seed(record)
    return list(
        dict.fromkeys([what, *plain, *(f"{name}, seed {seed}" for name in plain if seed is not None)])
    )


def described(record: ActionRecord) -> str:
    """A record told from others of its name."""
    what = _what(record)
    seed = _seed(record)
    told = f", seed {seed}" if seed is not None and "seed" not in what else ""
    return f"{record.key[:SHORT]} {what}{told} ({record.created[:16].replace('T', ' ')})"


def _what(record: ActionRecord) -> str:
    return str(record.provenance.get("what", record.operation))


def _seed(record: ActionRecord) -> int | None:
    for section in (TRAIN, UNLEARN):
        settings = record.params.get(section)
        if isinstance(settings, dict) and "seed" in settings:
            return int(settings["seed"])
    return None


def _plain(name: str) -> str:
    """Without commas between words, in small letters: as people type it."""
    return " ".join(name.replace(", ", " ").casefold().split())


def _unknown(text: str, records: Sequence[ActionRecord]) -> DataError:
    known = list(dict.fromkeys(name for record in records for name in names_of(record)))
    guess = nearest(text, known)
    if guess:
        hint = f"did you mean '{guess}'?"
    else:
        hint = f"known: {few([repr(name) for name in dict.fromkeys(map(_what, records))])}"
    return DataError(
        f"no record is called '{text}'" + (f"; {hint}" if known else ""),
        why="a name is what guda store ls --all shows; a key is four of its digits or more",
        fix="guda store ls --all",
    )
