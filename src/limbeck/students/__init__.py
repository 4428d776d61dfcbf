"""Student builders: a model becomes another one that is to learn, before any training."""

from limbeck.students.batch_ensemble import BatchEnsemble, batch_ensemble
from limbeck.students.cut import export_dense, merge_parallel
from limbeck.students.fit import fit_targets
from limbeck.students.spectral import (
    SpectralPenalty,
    alive_nodes,
    keep_share,
    mask_nodes,
    node_scores,
    spectralize,
)
from limbeck.students.start import Start, start_from
from limbeck.students.width import Width, find_width, keep_best

__all__ = [
    "BatchEnsemble",
    "SpectralPenalty",
    "Start",
    "Width",
    "alive_nodes",
    "batch_ensemble",
    "export_dense",
    "find_width",
    "fit_targets",
    "keep_best",
    "keep_share",
    "mask_nodes",
    "merge_parallel",
    "node_scores",
    "spectralize",
    "start_from",
]
