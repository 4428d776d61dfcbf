"""Texts become vectors: hashed n-grams, tf-idf with truncated SVD, or token ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec

_TERMS = 10_000
"""Largest vocabulary of tf-idf."""

_SVD_TEXTS = 20_000
"""Texts, evenly spread, from which the SVD is computed where there are more."""

_WORDS = 20_000
"""Largest vocabulary of tokens."""

PADDING, UNKNOWN = 0, 1
"""Token ids that stand for no word."""

State = tuple[dict[str, Any], dict[str, Tensor]]
"""What encodes texts: JSON-ready values, and tensors by name."""


def fit_texts(texts: Sequence[str], spec: DataSpec, *, seed: int) -> State:
    """Learn from the training texts how texts are encoded.

    Args:
        texts: of the training split only.
        spec: its `encode`, `features`, `length`.
        seed: of the randomised SVD.

    Returns:
        State for `encode_texts`. With `tfidf` the tensors are `idf` (V,) and `components`
        (F, V) for a vocabulary of V terms; other encoders have none.

    Raises:
        InputError: the texts hold no word at all.
    """
    if spec.encode == "hash":
        return {"encode": "hash", "features": spec.features}, {}
    if spec.encode == "tokens":
        return {"encode": "tokens", "length": spec.length, "vocabulary": _vocabulary(texts)}, {}
    return _fit_tfidf(texts, spec.features, seed)


def encode_texts(
    texts: Iterable[str], state: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Tensor:
    """Texts as vectors.

    Args:
        texts: N of them.
        state: from `fit_texts`.
        tensors: from `fit_texts`.

    Returns:
        float32 (N, F), scaled so that the mean square of the training vectors is about 1; with
        `tokens` int64 (N, length), padded with 0, unknown words 1.
    """
    if state["encode"] == "hash":
        return _hash(list(texts), state["features"])
    if state["encode"] == "tokens":
        return _tokens(texts, state)
    return _project(list(texts), state, tensors).mul(state["scale"])


def _hash(texts: list[str], features: int) -> Tensor:
    """Signed counts of hashed words and word pairs (Weinberger et al. 2009), mean square 1."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hasher = HashingVectorizer(n_features=features, ngram_range=(1, 2), dtype=np.float32)
    vectors = torch.from_numpy(hasher.transform(texts).toarray())
    return vectors.mul(features**0.5)


def _fit_tfidf(texts: Sequence[str], features: int, seed: int) -> State:
    from sklearn.decomposition import TruncatedSVD

    least = 2 if len(texts) >= 1000 else 1
    weigher = _weigher(max_features=_TERMS, min_df=least)
    try:
        weights = weigher.fit_transform(texts)
    except ValueError:
        raise InputError(
            "the training texts hold no word of two letters or more; is this the text column?"
        ) from None
    some = weights[:: -(-len(texts) // _SVD_TEXTS)]
    width = max(1, min(features, min(some.shape) - 1))
    svd = TruncatedSVD(width, n_iter=3, random_state=seed % 2**32).fit(some)
    tensors = {
        "idf": torch.from_numpy(weigher.idf_).float(),
        "components": torch.from_numpy(svd.components_).float(),
    }
    terms = sorted(weigher.vocabulary_, key=weigher.vocabulary_.__getitem__)
    size = float(np.square(weights @ svd.components_.T).mean()) ** 0.5
    return {"encode": "tfidf", "vocabulary": terms, "scale": 1 / (size or 1.0)}, tensors


def _project(texts: list[str], state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    weigher = _weigher(vocabulary=state["vocabulary"])
    weigher.idf_ = tensors["idf"].numpy()
    projected = weigher.transform(texts) @ tensors["components"].numpy().T
    return torch.from_numpy(projected).float()


def _weigher(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, **options)


def _words(text: str) -> list[str]:
    """Lower-case words, numbers and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _vocabulary(texts: Iterable[str]) -> list[str]:
    """Words by falling frequency; those seen once are left to the unknown token."""
    counts = Counter(word for text in texts for word in _words(text))
    frequent = sorted((-count, word) for word, count in counts.items() if count > 1)
    return [word for _, word in frequent[:_WORDS]]


def _tokens(texts: Iterable[str], state: Mapping[str, Any]) -> Tensor:
    number = {word: place for place, word in enumerate(state["vocabulary"], start=UNKNOWN + 1)}
    length = state["length"]
    rows = []
    for text in texts:
        ids = [number.get(word, UNKNOWN) for word in _words(text)[:length]]
        rows.append(ids + [PADDING] * (length - len(ids)))
    return torch.tensor(rows, dtype=torch.int64).view(-1, length)
