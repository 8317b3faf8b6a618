"""Models out of the store, as ordinary diffusers folders."""

from __future__ import annotations

from pathlib import Path

from guda_cli.errors import DataError, UsageError
from guda_cli.store import ActionRecord, Store
from guda_cli.workflow.project.model_record import StoredModel


def export_model(store: Store, record: ActionRecord, folder: Path) -> None:
    """Write a trained, registered or unlearned model as the folder of its family's pipeline.

    UsageError when the record is no model, DataError when the folder exists and is not empty.
    """
    if "weights" not in record.outputs:
        raise UsageError(f"{record.key[:10]} ({record.operation}) is no model", fix="guda store ls")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty", fix="name a new folder")
    blobs = {**record.inputs, **record.outputs}
    model = StoredModel(record, lambda name: store.read_bytes(blobs[name]))
    weights = store.read_bytes(model.weights)
    if model.unlearned:
        weights = _apply_delta(store.read_bytes(model.blobs["weights"]), weights)
    parts = {name: store.read_bytes(blob) for name, blob in model.parts.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.family.write(folder, weights, model.config, parts)
    except OSError as err:
        raise DataError(f"cannot write {folder}", why=err.strerror or str(err)) from None


def _apply_delta(base: bytes, delta: bytes) -> bytes:
    from guda_cli.diffusion import networks
    from guda_cli.unlearning import subsets

    return networks.to_bytes(subsets.merge(networks.from_bytes(base), networks.from_bytes(delta)))
