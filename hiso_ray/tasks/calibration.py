"""Calibrated client losses: what a client expects by its own mix of classes is added to the logits.

Under label skew most of a client's gradient says "predict the classes that I hold", differently for
every client. ``method.client_loss calibrated`` takes that out: client i minimises the mean
cross-entropy of ``logits + log π_i``, where π_i are the shares of the classes among its own
examples, so that its logits only have to tell how likely a class is apart from π_i (Menon et al.
2021, arXiv 2007.07314, and Ren et al. 2020, arXiv 2007.10740, for one skewed data set; between
clients Zhang et al. 2022, arXiv 2209.00189, whose margins are other powers of the counts). Nothing
more is sent, and evaluation uses the plain logits.
"""

from __future__ import annotations

import numpy as np

from hiso_ray.federation.partition import Partition
from hiso_ray.tasks.contract import Prepared

PSEUDO_COUNT = 0.1  # of every class at every client, so that a class it lacks has a logarithm


def offsets(prepared: Prepared, partition: Partition) -> np.ndarray:
    """(n, classes) float32: log π_i of the client i that holds each training example.

    π_i is the client's count of each class plus ``PSEUDO_COUNT``, divided by their sum.
    """
    counts = partition.label_counts(prepared.arrays[prepared.classes], prepared.num_classes)
    smoothed = counts + PSEUDO_COUNT
    of_client = np.log(smoothed / smoothed.sum(1, keepdims=True)).astype(np.float32)
    found = np.empty((len(prepared.labels), prepared.num_classes), np.float32)
    found[partition.examples] = np.repeat(of_client, np.diff(partition.offsets), axis=0)
    return found
