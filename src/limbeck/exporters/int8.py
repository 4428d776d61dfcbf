"""An int8 copy of the ONNX student, by the quantization of onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.exporters.graph import INPUT, quiet, require

_BATCH = 64  # calibration samples at a time


def write_int8(source: Path, path: Path, calibration: Tensor | None) -> str:
    """Quantize an ONNX file.

    A student with convolutions is quantized statically: weights by channel, activations by the
    ranges seen on `calibration`. Any other is quantized dynamically: weights ahead, activations
    as they come.

    Args:
        source: the float32 ONNX file.
        path: where the int8 file goes.
        calibration: samples (N, ...) in the scale that the ONNX file takes.

    Returns:
        "static" or "dynamic".

    Raises:
        InputError: convolutions without calibration samples, or the extra `onnx` is missing.
    """
    require("onnx", "onnxruntime", "onnxruntime.quantization")
    static = _has_convolutions(source)
    if static and calibration is None:
        raise InputError(
            "an int8 copy of a student with convolutions needs calibration samples; pass "
            "calibration= a few hundred training samples"
        )
    with quiet():
        _quantize(source, path, calibration if static else None)
    return "static" if static else "dynamic"


def _has_convolutions(source: Path) -> bool:
    import onnx

    nodes = onnx.load(source, load_external_data=False).graph.node
    return any(node.op_type in ("Conv", "ConvTranspose") for node in nodes)


def _quantize(source: Path, path: Path, calibration: Tensor | None) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name(f"{path.name}.prepared")
    try:
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        if calibration is None:
            quantization.quantize_dynamic(
                prepared, path, weight_type=quantization.QuantType.QInt8, per_channel=True
            )
        else:
            quantization.quantize_static(
                prepared,
                path,
                _Reader(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
            )
    finally:
        prepared.unlink(missing_ok=True)


class _Reader:
    """Calibration samples batch by batch, as onnxruntime asks for them."""

    def __init__(self, samples: Tensor) -> None:
        self._batches: Iterator[Tensor] = iter(torch.split(samples, _BATCH))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.numpy()}
