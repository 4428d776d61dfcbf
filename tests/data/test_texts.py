import json

import pytest
import torch

from limbeck.data.texts import PADDING, UNKNOWN, encode_texts, fit_texts
from limbeck.errors import InputError
from limbeck.recipe.spec import DataSpec

TEXTS = [
    f"the {animal} eats {food}" for animal in ("cat", "dog", "hen") for food in ("fish", "corn")
]


def fit(texts=TEXTS, **options):
    return fit_texts(texts, DataSpec(**options), seed=0)


@pytest.mark.parametrize("encode", ["hash", "tfidf", "tokens"])
def test_the_state_survives_json_and_encodes_alike(encode):
    state, tensors = fit(encode=encode, features=4)
    again = json.loads(json.dumps(state))
    expected = encode_texts(TEXTS, state, tensors)
    assert torch.equal(encode_texts(TEXTS, again, tensors), expected)
    assert torch.equal(encode_texts(TEXTS[3:4], again, tensors), expected[3:4])


@pytest.mark.parametrize("encode", ["hash", "tfidf"])
def test_vectors_are_of_unit_mean_square(encode):
    state, tensors = fit(encode=encode, features=5)
    vectors = encode_texts(TEXTS, state, tensors)
    assert vectors.shape == (6, 5)
    assert vectors.dtype == torch.float32
    assert vectors.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_tfidf_puts_similar_texts_close_together():
    state, tensors = fit(encode="tfidf", features=5)
    cat, cats, other = encode_texts(
        ["the cat eats fish", "the cat eats corn", "hen hen hen"], state, tensors
    )
    near = torch.cosine_similarity(cat, cats, dim=0)
    assert near > torch.cosine_similarity(cat, other, dim=0) + 0.2


def test_components_never_outnumber_texts_and_terms():
    state, tensors = fit(["one two", "two three", "three one"], encode="tfidf", features=256)
    assert encode_texts(["two"], state, tensors).shape == (1, 2)


def test_tokens_are_words_by_frequency():
    state, _ = fit(encode="tokens", length=6)
    assert state["vocabulary"][:2] == ["eats", "the"]
    the, eats, cat = (state["vocabulary"].index(word) + 2 for word in ("the", "eats", "cat"))
    ids = encode_texts(["The CAT eats snow!", "", "the " * 9], state, {})
    assert ids.tolist() == [
        [the, cat, eats, UNKNOWN, UNKNOWN, PADDING],
        [PADDING] * 6,
        [the] * 6,
    ]
    assert ids.dtype == torch.int64


def test_words_seen_once_are_unknown():
    state, _ = fit(["a b", "a c"], encode="tokens")
    assert state["vocabulary"] == ["a"]


def test_texts_without_words_are_refused():
    with pytest.raises(InputError, match="hold no word of two letters or more"):
        fit(["", "?!", "a"], encode="tfidf")
