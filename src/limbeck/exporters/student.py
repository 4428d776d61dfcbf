"""Export: the plain student with its card, and graph files that are checked against it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.engine.checkpoint import load_tensors, save_tensors
from limbeck.errors import InputError, RunError, nearest
from limbeck.exporters.card import card_markdown
from limbeck.exporters.graph import Answer, Graph, open_onnx, open_pt2, write_onnx, write_pt2
from limbeck.exporters.int8 import write_int8
from limbeck.exporters.latency import latency_of
from limbeck.nn.input import InputAdapter
from limbeck.recipe.folder import write_json, write_text

FILES = {
    "safetensors": "student.safetensors",
    "pt2": "student.pt2",
    "onnx": "student.onnx",
    "int8": "student.int8.onnx",
}


def export_student(
    model: nn.Module,
    folder: str | Path,
    *,
    card: Mapping[str, Any],
    samples: Tensor,
    formats: Iterable[str] = ("safetensors",),
    tolerance: float = 1e-4,
    calibration: Tensor | None = None,
    adapter: InputAdapter | None = None,
) -> dict[str, Any]:
    """Write a student with `card.json` and `card.md`, each file checked on real samples.

    `student.safetensors` is the plain state dict and always written. The graph files take
    any batch size; they hold the adapter, so that they take samples in the data's own scale.

    Args:
        model: the plain student; it is not changed.
        folder: where the files go; created where it does not exist.
        card: the student's card; its `exports` gets an entry a format.
        samples: real samples (N, ...), N >= 2, in the data's own scale.
        formats: of "safetensors", "pt2" (torch.export), "onnx", "int8".
        tolerance: largest absolute difference of a logit, relative to the largest logit where
            that is above 1. It does not bind "int8", whose agreement is recorded instead.
        calibration: samples for the int8 copy of a student with convolutions.
        adapter: how the student wants its inputs, None: as they are.

    Returns:
        The card as written.

    Raises:
        InputError: an unknown format, too few samples, no such folder, or a missing extra.
        RunError: a file's logits differ from the student's; that file is removed.
    """
    wanted = _formats(formats)
    if len(samples) < 2:
        raise InputError(f"an export is checked on two samples or more, found {len(samples)}")
    folder = _folder(Path(folder))
    graph = copy.deepcopy(Graph(model, adapter)).cpu().eval()
    job = _Export(graph, folder, samples.cpu(), tolerance)
    exports = {name: job.write(name, calibration) for name in wanted}
    content = dict(card) | {"exports": {**card.get("exports", {}), **exports}}
    write_json(folder / "card.json", content)
    write_text(folder / "card.md", card_markdown(content))
    _refuse(exports, tolerance)
    return content


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {path}: {error.strerror}") from None
    return path


def _formats(formats: Iterable[str]) -> list[str]:
    """The formats in the order in which they are written."""
    given = list(formats)
    for name in given:
        if name not in FILES:
            raise InputError(
                f"unknown export format {name!r}{nearest(name, FILES)}; known: {', '.join(FILES)}"
            )
    return [name for name in FILES if name in given or name == "safetensors"]


def _refuse(exports: Mapping[str, Mapping[str, Any]], tolerance: float) -> None:
    for name, entry in exports.items():
        if entry["passed"] is False:
            raise RunError(
                f"the {name} file answers otherwise than the student: its logits differ by up to "
                f"{entry['max_abs_difference']:.3g}, allowed is {tolerance:g}; it was removed"
            )


class _Export:
    """One student on its way into a folder."""

    def __init__(self, graph: Graph, folder: Path, samples: Tensor, tolerance: float) -> None:
        self.graph = graph
        self.folder = folder
        self.samples = samples
        self.tolerance = tolerance
        sizes = {1, max(2, len(samples) // 2), len(samples)}
        self.expected = {size: self._expected(size) for size in sorted(sizes)}
        self.kept: set[str] = set()

    def write(self, name: str, calibration: Tensor | None) -> dict[str, Any]:
        """Write one format under a temporary name, measure it, and keep it where it passes."""
        path = self.folder / FILES[name]
        part = path.with_name(f".part-{path.name}")
        try:
            more = self._write(name, part, calibration)
            answer = self._open(name, part)
            entry = self._measure(path.name, part, answer) | more
            if name == "int8":
                entry |= self._agreement(answer)
            else:
                entry["passed"] = entry["max_abs_difference"] <= self._allowed()
            if entry["passed"] is False:
                path.unlink(missing_ok=True)
            else:
                os.replace(part, path)
                self.kept.add(name)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from None
        finally:
            part.unlink(missing_ok=True)
        return entry

    def _write(self, name: str, part: Path, calibration: Tensor | None) -> dict[str, Any]:
        if name == "safetensors":
            save_tensors(part, self.graph.model.state_dict(), {})
        elif name == "pt2":
            write_pt2(self.graph, self.samples, part)
        elif name == "onnx":
            write_onnx(self.graph, self.samples, part)
        else:
            return {"kind": self._int8(part, calibration)}
        return {}

    def _int8(self, part: Path, calibration: Tensor | None) -> str:
        """Quantize the ONNX student, which is written for this where it was not asked for."""
        if "onnx" in self.kept:
            return write_int8(self.folder / FILES["onnx"], part, calibration)
        source = part.with_name(".part-source.onnx")
        try:
            write_onnx(self.graph, self.samples, source)
            return write_int8(source, part, calibration)
        finally:
            source.unlink(missing_ok=True)

    def _open(self, name: str, part: Path) -> Answer:
        if name == "safetensors":
            loaded = copy.deepcopy(self.graph)
            loaded.model.load_state_dict(load_tensors(part)[0])
            return loaded
        return open_pt2(part) if name == "pt2" else open_onnx(part)

    def _measure(self, file: str, part: Path, answer: Answer) -> dict[str, Any]:
        """Size, speed, and the largest difference at several batch sizes."""
        gaps = [self._gap(answer, size) for size in self.expected]
        return {
            "file": file,
            "bytes": part.stat().st_size,
            "samples": len(self.samples),
            "max_abs_difference": max(gaps),
            "latency_ms": latency_of(answer, self.samples[:1]),
        }

    def _expected(self, size: int) -> Tensor:
        """What the student itself says of the first `size` samples."""
        try:
            return _answers(self.graph, self.samples[:size])
        except RuntimeError as error:
            raise RunError(f"the student cannot answer a batch of {size}: {error}") from None

    def _gap(self, answer: Answer, size: int) -> float:
        found = _answers(answer, self.samples[:size])
        return float((found - self.expected[size]).abs().nan_to_num(torch.inf).max())

    def _allowed(self) -> float:
        return self.tolerance * max(1.0, float(self.expected[len(self.samples)].abs().max()))

    def _agreement(self, answer: Answer) -> dict[str, Any]:
        """How often the most likely class is the student's; nothing passes or fails by it."""
        ours = self.expected[len(self.samples)].argmax(-1)
        same = _answers(answer, self.samples).argmax(-1) == ours
        return {"agreement": float(same.float().mean()), "passed": None}


def _answers(answer: Answer, samples: Tensor) -> Tensor:
    with torch.no_grad():
        return answer(samples).detach().float().clone()
