"""The linear datamodeling score over groups (Park et al. 2023): do sums of scores foretell retraining?

Models were trained without many random sets of groups. If a method's scores add up, their sum over the groups
taken away ranks these models as the query's measured loss of ELBO does.
"""

from __future__ import annotations

import numpy as np

from guda_cli.attribution.rank_agreement import metrics
from guda_cli.data.dataset import Mask
from guda_cli.diffusion.schedule import Array
from guda_cli.errors import DataError


def predicted_sums(scores: Array, removed: Mask) -> Array:
    """Sum of each query's scores [queries, groups] over the groups of each removal: [queries, removals].

    `removed` [removals, groups] tells which groups a removal takes away. DataError where they do not fit.
    """
    if np.ndim(scores) != 2 or np.ndim(removed) != 2 or np.shape(scores)[1] != np.shape(removed)[1]:
        raise DataError(
            f"scores {list(np.shape(scores))} cannot be summed over removals {list(np.shape(removed))}",
            why="both must be over the same groups",
        )
    return np.asarray(np.asarray(scores, np.float64) @ np.asarray(removed, np.float64).T)


def datamodel_scores(scores: Array, removed: Mask, measured: Array) -> Array:
    """Spearman correlation, over the removals, of predicted with measured losses of ELBO: [queries].

    `measured` [queries, removals] is ELBO(full) - ELBO(model without the removal), in any unit. 0 where
    either is constant over the removals. DataError where shapes differ or a number is not finite.
    """
    return metrics(predicted_sums(scores, removed), measured)["spearman"]
