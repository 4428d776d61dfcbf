"""The student as one graph file: written by torch.export or ONNX, read back as a function."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import InputError, RunError
from limbeck.nn.forward import as_record
from limbeck.nn.input import InputAdapter

Answer = Callable[[Tensor], Tensor]
"""Samples (B, ...) to logits (B, C), both on the CPU."""

INPUT, OUTPUT = "x", "logits"


class Graph(nn.Module):
    """A student with its input adapter: samples in the data's own scale to logits.

    Args:
        model: the student.
        adapter: how it wants its inputs, None: it takes samples as they are.
    """

    def __init__(self, model: nn.Module, adapter: InputAdapter | None) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter or InputAdapter()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return as_record(self.model(self.adapter(x)))["logits"]


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn about their own insides and log through the root logger; not our user's."""
    handlers, level = logging.root.handlers[:], logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers


def require(*modules: str) -> None:
    """Import what ONNX files need.

    Raises:
        InputError: the extra is not installed.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            raise InputError(
                f"ONNX files need {module}, which is not installed: pip install 'limbeck[onnx]'"
            ) from None


def write_pt2(graph: Graph, samples: Tensor, path: Path) -> None:
    """Write `graph` with a free batch size by `torch.export`.

    Raises:
        RunError: the student cannot be exported.
    """
    with _exporting("torch.export"):
        program = torch.export.export(graph, (samples,), dynamic_shapes=_free_batch())
        torch.export.save(program, path)


def open_pt2(path: Path) -> Answer:
    """The exported program as a function."""
    with quiet():
        answer: Answer = torch.export.load(path).module()
    return answer


def write_onnx(graph: Graph, samples: Tensor, path: Path) -> None:
    """Write `graph` with a free batch size as ONNX.

    Raises:
        InputError: the extra `onnx` is not installed.
        RunError: the student cannot be exported.
    """
    require("onnx", "onnxscript", "onnxruntime")
    with _exporting("ONNX"):
        program = torch.onnx.export(
            graph,
            (samples,),
            dynamo=True,
            dynamic_shapes=_free_batch(),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        if program is None:
            raise RuntimeError("the exporter returned nothing")
        program.save(path)


def open_onnx(path: Path) -> Answer:
    """An ONNX file as a function, on as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def answer(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0])

    return answer


def _free_batch() -> dict[str, Any]:
    return {INPUT: {0: torch.export.Dim("batch")}}


@contextmanager
def _exporting(name: str) -> Iterator[None]:
    """Turn whatever an exporter raises into one sentence."""
    try:
        with quiet(), torch.no_grad():
            yield
    except OSError:
        raise
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise RunError(
            f"{name} cannot take this student with a free batch size: {type(error).__name__}: "
            f"{reason.strip()}"
        ) from error
