"""Models out of the store, as ordinary diffusers folders."""

from __future__ import annotations

import errno
from pathlib import Path

from guda_cli.checkpoints.components import PartsRead
from guda_cli.errors import UsageError
from guda_cli.outfile import whole_folder
from guda_cli.store import ActionRecord, Store
from guda_cli.workflow.project.model_record import StoredModel


def export_model(store: Store, record: ActionRecord, folder: Path) -> None:
    """Write a trained, registered or unlearned model as the folder of its family's pipeline.

    UsageError when the record is no model, DataError when the folder exists and is not empty.
    """
    if "weights" not in record.outputs:
        raise UsageError(
            f"{record.provenance.get('what', record.operation)} ({record.key[:10]}) is no model",
            fix="guda store ls unlearn",
        )
    from safetensors import SafetensorError

    from guda_cli.diffusion.networks import Weights
    from guda_cli.diffusion.weight_file import mapped
    from guda_cli.unlearning import subsets

    with whole_folder(folder, f"guda store export {record.key[:10]} DIR") as part:
        blobs = {**record.inputs, **record.outputs}
        model = StoredModel(record, lambda name: store.read_bytes(blobs[name]))
        weights: Weights = store.opened(model.weights, mapped)
        if model.unlearned:
            weights = subsets.merge(store.opened(model.blobs["weights"], mapped), weights)
        weighty = model.family.weighty_parts
        parts: PartsRead = {
            name: store.opened(blob, mapped) if name in weighty else store.read_bytes(blob)
            for name, blob in model.parts.items()
        }
        try:
            model.family.write(part, weights, model.config, parts)
        except SafetensorError as err:  # how its writer says that the disk is full
            raise OSError(errno.ENOSPC, str(err)) from None
