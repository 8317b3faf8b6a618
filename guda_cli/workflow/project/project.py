"""One recipe on one store: what every workflow starts from. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from guda_cli.console import Console
from guda_cli.data import known_sets
from guda_cli.data.sources.detect import MissingSourceError
from guda_cli.errors import CorruptError, DataError, MissingError
from guda_cli.families.family import Family
from guda_cli.families.known import family_of
from guda_cli.jsonable import plain
from guda_cli.phrases import human_seconds, plural
from guda_cli.plain_text import quoted, spelled, unspelled
from guda_cli.sections import DataSpec, Recipe, to_dict
from guda_cli.store import ActionRecord, CorruptBlob, LeaseBusy, MissingBlob, Store
from guda_cli.training import distributed
from guda_cli.workflow.keys import steps
from guda_cli.workflow.keys.operations import (
    CALIBRATION,
    FAMILIAR,
    HELD_OUT,
    MODELS,
    PIPELINE,
    REGISTER,
    TERM_SIZES,
    Action,
    DataRef,
)
from guda_cli.workflow.project.model_record import StoredModel

if TYPE_CHECKING:
    from pathlib import Path

    from guda_cli.data.classes import Classes
    from guda_cli.data.dataset import Dataset
    from guda_cli.diffusion.weight_file import MappedWeights

FINITE = "finite"
"""The fact of a record that names those of its outputs whose weights were found finite."""
ATTEMPTS = 8  # at publishing what is taken away meanwhile
SHORT_KEY = 10  # digits of a key that are shown
T = TypeVar("T")
SHARED = MODELS  # operations that all processes of a launch work on together
PACKAGES = ("guda", "torch", "diffusers", "numpy", "safetensors", "h5py", "pillow", "scikit-learn", "scipy")


class Packed(Protocol):
    """Weights as a file's bytes: `diffusion.weight_file.PackedWeights`, which are finite or an error."""

    def pieces(self) -> Iterable[memoryview | bytes]:
        """The bytes in order."""
        ...


Output = bytes | Packed


@dataclass(frozen=True)
class Made:
    """What running an action gives: blobs by name, and facts for its record."""

    outputs: Mapping[str, bytes]
    facts: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    """More blobs: what writes each, which may be larger than memory, to a new file."""
    weights: Mapping[str, Packed] = field(default_factory=dict)
    """More blobs: weights, which are found finite as they are stored."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """Digests of blobs that were put into the store already."""

    @staticmethod
    def of(
        blobs: Mapping[str, Output],
        facts: Mapping[str, Any] | None = None,
        stored: Mapping[str, str] | None = None,
    ) -> Made:
        """From bytes and weights together."""
        plain = {name: data for name, data in blobs.items() if isinstance(data, bytes)}
        weights = {name: data for name, data in blobs.items() if not isinstance(data, bytes)}
        return Made(plain, facts or {}, weights=weights, stored=stored or {})


@dataclass(frozen=True)
class Job:
    """An action and the function that runs it."""

    action: Action
    make: Callable[[], Made]


class Project:
    """A recipe, its store and the console; runs jobs once and finds what they made."""

    def __init__(
        self, recipe: Recipe, store: Store, console: Console, *, wait: bool = True, jobs: int | None = None
    ) -> None:
        self.recipe, self.store, self.console, self.wait = recipe, store, console, wait
        self.jobs = jobs  # models made at once, where the user says how many
        store.want({"recipe": to_dict(recipe)})  # garbage collection leaves it what it may need
        self.ran: set[str] = set()  # action keys that this process ran
        self.lost: dict[
            str, None
        ] = {}  # commands that make again what answers lacked: it was damaged or gone
        self._told: set[str] = set()  # and those it has said, with --verbose, to be in the store
        self._jobs: dict[str, Job] = {}
        self._dataset: Dataset | None = None
        self._held_out: Dataset | None = None
        self._data: DataRef | None = None
        self._said_gone = False
        self._full: tuple[DataRef, Action] | None = None
        self._models: dict[str, StoredModel] = {}

    def of_recipe(self, recipe: Recipe) -> Project:
        """The same with another recipe."""
        return Project(recipe, self.store, self.console, wait=self.wait, jobs=self.jobs)

    @cached_property
    def family(self) -> Family:
        """The kind of model that the recipe is about."""
        return family_of(self.recipe)

    # -- running -----------------------------------------------------------------------------------

    def ensure(self, job: Job) -> ActionRecord:
        """The record of a job: from the store, or by running it under a lease.

        In a launch of several processes only the first one publishes; see `training.distributed`.
        """
        action = job.action
        self._jobs[action.key] = job
        record = self.store.lookup(action.key)
        if record is None and distributed.rank():
            make = job.make if action.operation in SHARED else None
            record = distributed.follow(action.key, lambda: self.store.lookup(action.key), make)
        if record is None:
            with self.lease(action.key, action.what, holds=action.inputs.values()):
                record = self.store.lookup(action.key) or self._run(job)
        self.tell_notices()
        if action.key not in self.ran | self._told:
            self._told.add(action.key)
            self.console.detail(f"{action.what} [{action.key[:SHORT_KEY]}]: in the store{_took(record)}")
        return record

    def _run(self, job: Job) -> ActionRecord:
        action, started = job.action, time.monotonic()
        self.store.require_writable(action.what)
        work = f", {action.forwards:,.0f} forward-equivalents" if action.forwards else ""
        self.console.detail(f"{action.what} [{action.key[:SHORT_KEY]}]: begun{work}")
        with distributed.leading(action.key, shared=action.operation in SHARED):
            made = job.make()
        return self._finish(action, made, time.monotonic() - started)

    def run_together(self, jobs: Sequence[Job], make: Callable[[Sequence[Job]], Sequence[Made]]) -> None:
        """Publish what `make` gives, in one go, for those of `jobs` that are missing and nobody works on.

        Nothing where that is one alone.
        """
        with ExitStack() as held:
            mine = [job for job in jobs if self._begins(job.action, held)]
            if len(mine) < 2:
                return
            started = time.monotonic()
            made = make(mine)
            seconds = (time.monotonic() - started) / len(mine)
            for job, own in zip(mine, made, strict=True):
                self._finish(job.action, own, seconds)

    def _begins(self, action: Action, held: ExitStack) -> bool:
        """Whether `action` is to be done by this process, which has its lease then until `held` ends."""
        try:
            held.enter_context(self.store.lease(action.key, wait=False, holds=action.inputs.values()))
        except LeaseBusy:
            return False
        return self.store.lookup(action.key) is None

    def _finish(self, action: Action, made: Made, seconds: float) -> ActionRecord:
        """Publish what was made of `action`, whose state is of no use any more."""
        facts = {"wall_seconds": seconds, "forwards": action.forwards, "what": action.what}
        record = self._publish(action, made, plain(provenance() | facts | dict(made.facts)))
        self.store.drop_state(action.key)
        self.ran.add(action.key)
        self.console.detail(f"{action.what} [{action.key[:SHORT_KEY]}]: done{_took(record)}")
        return record

    def _publish(self, action: Action, made: Made, facts: Mapping[str, Any]) -> ActionRecord:
        """The record of a finished action and its outputs, which are stored again where something took them.

        Garbage collection may, of a store that another program writes, or where there are no locks. Weights
        have been found finite as they were written, and the record says so (`weights`).
        """
        facts = {**facts, **({FINITE: sorted(made.weights)} if made.weights else {})}
        blobs: dict[str, Output] = {**made.outputs, **made.weights}

        def publish(stored: Mapping[str, str]) -> ActionRecord:
            return self.store.publish(
                action.key,
                operation=action.operation,
                version=action.version,
                params=dict(action.params),
                inputs=dict(action.inputs),
                outputs={name: stored.get(name) or self.put(data) for name, data in blobs.items()}
                | {name: self.store.put_written(write) for name, write in made.written.items()},
                provenance=facts,
            )

        for _ in range(ATTEMPTS):
            with suppress(MissingBlob):
                return publish(made.stored)
            made = replace(made, stored={})
        return publish({})

    def put(self, data: Output) -> str:
        """Store bytes, or weights piece by piece; their digest. DataError for weights that are not finite."""
        return self.store.put_bytes(data) if isinstance(data, bytes) else self.store.put_pieces(data.pieces())

    def keep(
        self,
        operation: str,
        outputs: Mapping[str, Output],
        what: str,
        facts: Mapping[str, Any],
        stored: Mapping[str, str],
    ) -> ActionRecord:
        """The record of `outputs` that were not made here: its key is their digests', `stored` by `put`."""
        action = Action(operation, {"digests": dict(stored)}, {}, what)
        return self.ensure(Job(action, lambda: Made.of(outputs, facts, stored)))

    def lease(self, key: str, what: str, *, holds: Iterable[str] = ()) -> AbstractContextManager[None]:
        """Hold the right to do `what`, waiting (and saying so) while another process does it."""

        def say(holder: Mapping[str, Any]) -> None:
            self.console.say(f"{what}: another process (pid {holder.get('pid')}) is at it; waiting")

        return self.store.lease(key, wait=self.wait, on_wait=say, holds=holds)

    def tell_notices(self) -> None:
        """Pass on what the store noticed (quarantined objects)."""
        while self.store.notices:
            self.console.warn(self.store.notices.pop(0))

    # -- reading -----------------------------------------------------------------------------------

    def read(self, record: ActionRecord, output: str) -> bytes:
        """An output's bytes, hash-checked; a damaged one is rebuilt where this command knows how.

        Raises CorruptError when it does not, or when the rebuilt object differs.
        """
        return self.parsed(record, output, bytes)

    def parsed(self, record: ActionRecord, output: str, parse: Callable[[bytes], T]) -> T:
        """What `parse` makes of an output's bytes, not to be changed; see `read` and `Store.parsed`."""
        return self._got(record, output, lambda digest: self.store.parsed(digest, parse))

    def weights(self, record: ActionRecord, output: str = "weights", what: str = "") -> MappedWeights:
        """The tensors of an output, mapped from its file and not to be changed; errors as `read`.

        They are finite: they were found so when they were stored, or once a store where they come from an
        earlier version. DataError where they are not, naming them as `what`.
        """
        from guda_cli.diffusion.networks import check_finite
        from guda_cli.diffusion.weight_file import mapped

        found = self._got(record, output, lambda digest: self.store.opened(digest, mapped))
        document = f"finite-{record.outputs[output]}"
        if output not in record.provenance.get(FINITE, ()) and self.store.get_document(document) is None:
            check_finite(found, what or f"the stored {output}")
            if not self.store.read_only:
                self.store.set_document(document, {"finite": True})
        return found

    def begin_check(self, records: Iterable[ActionRecord] = ()) -> None:
        """Hash weights of the full model, its parts and `records` beside what comes next, such as imports."""
        known = self._data is not None or self.recipe.model.registered
        full = self.known_full() if known else None
        for record in ([full] if full else []) + list(records):
            self.store.begin_check(record.outputs["weights"])
        for digest in self.model(full).parts.values() if full else ():
            self.store.begin_check(digest)

    def _got(self, record: ActionRecord, output: str, get: Callable[[str], T]) -> T:
        """What `get` gives for an output's digest; see `read` for damaged ones."""
        digest = record.outputs[output]
        try:
            return get(digest)
        except (CorruptBlob, MissingBlob) as err:
            self.tell_notices()
            job = self._jobs.get(record.key)
            if job is not None:
                self.console.say(f"rebuilding {job.action.what}")
                rebuilt = self.ensure(job)
                if rebuilt.outputs[output] == digest:
                    return get(digest)
            again = "guda train"
            if record.operation in (REGISTER, PIPELINE):
                again += " --from " + quoted(unspelled(str(record.provenance.get("source", "DIR"))))
            raise CorruptError(
                f"the stored {output} of the {record.provenance.get('what', record.operation)} is damaged",
                why=str(err),
                fix="guda score IMAGE"
                if record.operation in (TERM_SIZES, CALIBRATION, FAMILIAR)
                else f"{again} && guda unlearn --all",
            ) from None

    def model(self, record: ActionRecord) -> StoredModel:
        """What is known of the model of `record`, parsed once for all who ask."""
        if record.key not in self._models:

            def read(name: str) -> bytes:
                mine = name in record.outputs
                return self.read(record, name) if mine else self.store.read_bytes(record.inputs[name])

            self._models[record.key] = StoredModel(record, read)
        return self._models[record.key]

    def classes(self, full: ActionRecord) -> Classes | None:
        """Classes of the full model, None where it is unconditional; errors as `StoredModel.classes`."""
        return self.model(full).classes(self.recipe.model.class_conditional, self.data.counts)

    def knows(self, job: Job) -> None:
        """Remember how to rebuild a job's outputs."""
        self._jobs[job.action.key] = job

    # -- the dataset -------------------------------------------------------------------------------

    @property
    def data(self) -> DataRef:
        """The dataset, read into the store on first use."""
        if self._data is None:
            self._data = self._known_source() or self._store_dataset(self._read_source())
        self._data = self._with_parts(self._data)
        return self._data

    def read_already(self, data: DataRef) -> None:
        """Take `data` as the dataset, without a look at its source: another process has just had one."""
        self._data = data

    def known_data(self) -> DataRef | None:
        """The dataset if it is in the store and its source looks unchanged, without decoding anything."""
        self._data = self._data or self._known_source()
        return self.data if self._data else None

    def seen_data(self) -> DataRef | None:
        """The dataset as it is now, if it was ever read: a source that looks changed is read to see."""
        if self.known_data() is None and self.store.get_document(self._spec_document):
            return self.data
        return self.known_data()

    def _with_parts(self, data: DataRef) -> DataRef:
        """`data` with the parts that a text-to-image recipe has in the store by now."""
        if self.has_parts(data):
            return data
        from guda_cli.workflow.keys import part_keys

        return dataclasses.replace(data, parts=part_keys.known(self.recipe, data, self.store))

    def _known_source(self) -> DataRef | None:
        try:
            document = self.store.get_document(self._data_document)
        except DataError as err:  # the source is gone: what was read from it still serves
            document = self.store.get_document(self._spec_document)
            if document is None:
                if isinstance(err, MissingSourceError):
                    known_sets.remedied(err, self.recipe.name)
                raise
            if not self._said_gone:
                self.console.warn(f"{err.message}: using the copy in the store")
                self._said_gone = True
        record = self.store.lookup(document["key"]) if document else None
        return DataRef.of(record) if record else None

    @cached_property
    def _spec_document(self) -> str:
        values = to_dict(self.recipe.data)
        if not values["held_out"]:  # it came later: older stores know the document by its name without it
            del values["held_out"]
        spec = json.dumps(values, sort_keys=True)
        return f"source-{hashlib.sha256(spec.encode()).hexdigest()[:32]}"

    @cached_property
    def _data_document(self) -> str:
        from guda_cli.data.sources import fingerprint

        return f"dataset-{hashlib.sha256(fingerprint(self.recipe.data).encode()).hexdigest()[:32]}"

    def dataset(self) -> Dataset:
        """The images and groups themselves."""
        if self._dataset is None:
            self._dataset = self._stored_dataset("data") or self._read_again()
        return self._dataset

    def held_out(self) -> Dataset | None:
        """The images that no training sees, of the same groups; None where the recipe keeps none."""
        if not self.data.held_out:
            return None
        if self._held_out is None:
            self._held_out = self._stored_dataset(HELD_OUT) or self._read_again().held_out
        return self._held_out

    def _stored_dataset(self, output: str) -> Dataset | None:
        from guda_cli.data.dataset import from_bytes, from_file
        from guda_cli.data.pixel_file import MAPPED

        record = self.store.lookup(self.data.key)
        if record is None:
            return None
        digest = record.outputs[output]
        try:
            if self.store.blob_size(digest) > MAPPED:
                return from_file(self.store.blob_path(digest))
            return from_bytes(self.store.read_bytes(digest))
        except (CorruptBlob, MissingBlob):
            self.tell_notices()
            self.console.say("reading the dataset again from its source")
            return None

    def _read_again(self) -> Dataset:
        """From the source, where the store's copy is damaged; CorruptError where that has changed."""
        found = self._read_source()
        if self._store_dataset(found).blob != self.data.blob:
            raise CorruptError("the stored dataset is damaged and its source has changed", fix="guda train")
        return found

    def _read_source(self) -> Dataset:
        from guda_cli.data.pixel_file import kept_in
        from guda_cli.data.sources import read_dataset
        from guda_cli.workflow.project import needs

        needs.check(self.recipe)
        spec = self.recipe.data
        with kept_in(self.store.temporary_folder), reading_progress(self.console, spec) as progress:
            dataset = read_dataset(spec, progress)
        for note in dataset.notes:
            self.console.say(note)
        return dataset

    def _store_dataset(self, dataset: Dataset) -> DataRef:
        from guda_cli.data.dataset import to_bytes, to_file
        from guda_cli.data.pixel_file import is_mapped

        parts = {"data": dataset} | ({HELD_OUT: dataset.held_out} if dataset.held_out else {})
        params = {name: part.digest for name, part in parts.items()}
        params["digest"] = params.pop("data")
        action = Action("dataset", params, {}, "dataset")
        facts = {
            "groups": dataset.counts(),
            "images": len(dataset.names),
            "shape": list(dataset.images.shape[1:]),
            "notes": list(dataset.notes),
            "data": to_dict(self.recipe.data),
            **({HELD_OUT: len(dataset.held_out)} if dataset.held_out else {}),
        }

        def make() -> Made:
            large = {name: partial(to_file, part) for name, part in parts.items() if is_mapped(part.images)}
            small = {name: to_bytes(part) for name, part in parts.items() if name not in large}
            return Made(small, facts, large)

        record = self.ensure(Job(action, make))
        for name in (self._data_document, self._spec_document) if not self.store.read_only else ():
            self.store.set_document(name, {"key": record.key})
        return DataRef.of(record)

    # -- the full model ----------------------------------------------------------------------------

    def known_full(self) -> ActionRecord | None:
        """The full model's record if it is there; runs nothing."""
        if self.recipe.model.registered:
            return self.store.lookup(self.recipe.model.registered)
        data = self.known_data()
        if data is None or not self.has_parts(data):
            return None
        return self.store.lookup(self.full_action(data).key)

    def full_action(self, data: DataRef) -> Action:
        """The training of the full model on `data`; worked out once."""
        if self._full is None or self._full[0] != data:
            self._full = data, steps.train(self.recipe, data, None)
        return self._full[1]

    def has_parts(self, data: DataRef) -> bool:
        """Whether all that stands around the network is there; always, where it works on pixels."""
        return set(self.family.parts) <= data.parts.keys()

    def require_full(self) -> ActionRecord:
        """The full model's record, or MissingError naming the command that makes it.

        A source that was touched or copied looks changed until it is read: it is, before a model is missing.
        """
        record = self.known_full()
        if record is None and self._data is None and any(self.store.records("train")):
            _ = self.data
            record = self.known_full()
        if record is None:
            lost = self.store.lost(("train", "register"))
            gone = self._data is not None and self.full_action(self._data).key in {loss.key for loss in lost}
            gone = gone or self.recipe.model.registered in {loss.key for loss in lost}
            raise MissingError(
                f"there is no full model of recipe '{self.recipe.name}' yet",
                fix="guda train --from PIPELINE" if self.family.starts else "guda train",
                why=("it is damaged or gone from the store" if gone else self._changed())
                or "nothing has been trained, or its settings have changed since",
            )
        return record

    def _changed(self) -> str:
        """How the images differ from those that the last full model was trained on; "" where they do not."""
        trained = [r for r in self.store.records("train") if not r.params.get("without")]
        known = {r.outputs["data"]: r.provenance["groups"] for r in self.store.records("dataset")}
        before = known.get(trained[-1].inputs.get("dataset", "")) if trained else None
        if before is None or self._data is None or trained[-1].inputs["dataset"] == self._data.blob:
            return ""
        now = self._data.counts
        sizes = [f"{name} {before.get(name, 0)} -> {now.get(name, 0)}" for name in sorted({*before, *now})
                 if before.get(name) != now.get(name)]  # fmt: skip
        more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
        detail = f" ({', '.join(sizes[:3])}{more})" if sizes else ", though not in number"
        return f"the images have changed since a model was trained on them{detail}"


def now() -> str:
    """The date and time in UTC, to the second, as reports carry it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _took(record: ActionRecord) -> str:
    """How long an action took, and where it ran."""
    known = record.provenance
    where = [str(known["device"])] if "device" in known else []
    if known.get("device") == "cpu" and known.get("threads"):
        where.append(plural(known["threads"], "thread", "threads"))
    seconds = known.get("wall_seconds")
    took = "" if seconds is None else f", {human_seconds(seconds)}"
    return took + (f" on {', '.join(where)}" if where else "")


def provenance() -> dict[str, Any]:
    """What an auditor needs to run a step again: command (words as `plain_text.spelled`), versions, date."""
    found = {name: _version(name) for name in PACKAGES}
    return {
        "argv": ["guda", *map(spelled, sys.argv[1:])],
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": found,
    }


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def reading_progress(console: Console, spec: DataSpec) -> Iterator[Callable[[int, int | None], None]]:
    """A progress callback (done, total) for reading images."""
    with console.progress(
        f"reading {spec.source if spec.source != 'auto' else 'images'}", 0, unit="image"
    ) as bar:
        seen = 0

        def advance(done: int, total: int | None) -> None:
            nonlocal seen
            if total is not None:
                bar.total = total
            bar.advance(done - seen)
            seen = done

        yield advance
