"""Public data sets from the libraries that keep them: Hugging Face `datasets`, OpenML."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import RunError

# The official order of CIFAR-10 is that of data_batch_1 ... 5. Copies exist with the batches in
# another order, so the first two are told by their labels: SHA-256 of 20,000 bytes.
_CIFAR_BATCH = 10_000
_CIFAR_FIRST = "095e2e1dc3fa589cf7b94cd735dd043548910fb6559baae0d9fc751e56026644"

# Copies of Adult differ in which part comes first; age and weight of the first training row.
_ADULT_FIRST = (39, 77_516)
_ADULT_TRAIN = 32_561


def fashion_mnist(path: Path) -> None:
    """Xiao, Rasul and Vollgraf 2017; 60,000 and 10,000 grey images of 28 x 28."""
    _save(path, _images("zalando-datasets/fashion_mnist", "image", "label"))


def cifar10(path: Path) -> None:
    """Krizhevsky 2009; 50,000 and 10,000 colour images of 32 x 32, in the official order."""
    _save(path, _cifar10())


def cifar10_20k(path: Path) -> None:
    """CIFAR-10 with the first 20,000 training images only."""
    arrays = _cifar10()
    _save(path, arrays | {key: arrays[key][:20_000] for key in ("x_train", "y_train")})


def cifar100(path: Path) -> None:
    """Krizhevsky 2009; 50,000 and 10,000 colour images of 32 x 32 in 100 classes."""
    _save(path, _images("uoft-cs/cifar100", "img", "fine_label"))


def agnews(path: Path) -> None:
    """Zhang, Zhao and LeCun 2015; 120,000 and 7,600 news in 4 classes."""
    rows = _texts("fancyzhx/ag_news", {"train": "train", "test": "test"}, "text")
    _save_rows(path, rows)


def sst2(path: Path) -> None:
    """Socher et al. 2013 in the form of GLUE; its test part, unlabelled there, from SetFit."""
    rows = _texts("stanfordnlp/sst2", {"train": "train", "validation": "val"}, "sentence")
    _save_rows(path, [*rows, *_texts("SetFit/sst2", {"test": "test"}, "text")])


def adult(path: Path) -> None:
    """Becker and Kohavi 1996 (UCI); 32,561 training and 16,281 test rows, told by the first one."""
    from sklearn.datasets import fetch_openml

    found = fetch_openml("adult", version=2, as_frame=False, parser="liac-arff")
    rows: list[dict[str, Any]] = []
    for values, label in zip(found.data.tolist(), found.target.tolist(), strict=True):
        cells = zip(found.feature_names, values, strict=True)
        row = {name.replace("-", "_"): _cell(found, name, value) for name, value in cells}
        rows.append(row | {"label": label})
    numbers = [(row["age"], row["fnlwgt"]) for row in rows]
    first = numbers.index(_ADULT_FIRST)
    for place, row in enumerate(rows):
        row["split"] = "train" if first <= place < first + _ADULT_TRAIN else "test"
    _save_rows(path, rows)


def _cell(found: Any, name: str, value: float) -> str | float | None:
    """OpenML codes categories as numbers, and missing values as NaN."""
    if np.isnan(value):
        return None
    return str(found.categories[name][int(value)]) if name in found.categories else value


def _cifar10() -> dict[str, NDArray[Any]]:
    arrays = _images("uoft-cs/cifar10", "img", "label")
    order = _official_order(arrays["y_train"])
    return arrays | {key: arrays[key][order] for key in ("x_train", "y_train")}


def _official_order(y: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Rows with the first two official batches in front, wherever they stand."""
    batches = np.arange(len(y)).reshape(-1, _CIFAR_BATCH)
    for pair in itertools.permutations(range(len(batches)), 2):
        front = batches[list(pair)].ravel()
        if hashlib.sha256(y[front].tobytes()).hexdigest() == _CIFAR_FIRST:
            rest = [place for place in range(len(batches)) if place not in pair]
            return np.concatenate([front, batches[rest].ravel()])
    raise RunError("the downloaded cifar10 is in an order in which its first batches are not found")


def _images(repository: str, image: str, label: str) -> dict[str, NDArray[Any]]:
    from datasets import load_dataset

    arrays = {}
    for part in ("train", "test"):
        rows = load_dataset(repository, split=part)
        arrays[f"x_{part}"] = np.stack([np.asarray(one) for one in rows[image]])
        arrays[f"y_{part}"] = np.asarray(rows[label], dtype=np.uint8)
    arrays["classes"] = np.array(rows.features[label].names)
    return arrays


def _texts(repository: str, parts: dict[str, str], text: str) -> list[dict[str, Any]]:
    from datasets import load_dataset

    return [
        {"split": ours, "label": int(row["label"]), "text": row[text]}
        for theirs, ours in parts.items()
        for row in load_dataset(repository, split=theirs)
    ]


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:  # a path would have .npz appended
        np.savez(file, **arrays)


def _save_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
