"""Word vectors from counted neighbours: the counts against a loop over all pairs, and what the vectors are for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from electrain.data.shards import word_vectors as module
from electrain.data.shards.shards import open_shards
from electrain.data.shards.word_vectors import WINDOW, neighbour_information, word_vectors
from tiny_pretraining import SPECIAL_IDS

STREAMS = st.lists(st.integers(0, 11), max_size=60)


def stream(ids: list[int] | NDArray[np.int64], size: int = 12) -> Any:
    tokens = np.array(ids, np.int64)
    return SimpleNamespace(
        vocabulary_size=size,
        special_ids=SPECIAL_IDS,
        token_count=len(tokens),
        unigram_counts=np.bincount(tokens, minlength=size),
        read=lambda start, count: tokens[start : start + count],
    )


def counted_one_by_one(ids: list[int]) -> dict[tuple[int, int, str], int]:
    """By token, neighbour and its side; documents end with [SEP], and special tokens are nobody's neighbour."""
    found: dict[tuple[int, int, str], int] = {}
    for place, token in enumerate(ids):
        for other in range(max(0, place - WINDOW), place):
            between = ids[other : place + 1]
            if SPECIAL_IDS.sep in between or {token, ids[other]} & set(SPECIAL_IDS.all):
                continue
            for key in ((token, ids[other], "left"), (ids[other], token, "right")):
                found[key] = found.get(key, 0) + 60 // (place - other)
    return found


@settings(deadline=None)
@given(STREAMS)
def test_counts(ids: list[int]) -> None:
    counts = module._neighbour_counts(stream(ids))
    frequency = np.bincount(np.array(ids, np.int64), minlength=12)
    frequency[list(SPECIAL_IDS.all)] = 0
    neighbours = [token for token in np.argsort(-frequency, kind="stable").tolist() if frequency[token]]
    wanted = np.zeros((12, 2 * len(neighbours)), np.int64)
    for (token, other, side), weight in counted_one_by_one(ids).items():
        wanted[token, neighbours.index(other) + (len(neighbours) if side == "right" else 0)] = weight
    np.testing.assert_array_equal(counts, wanted)


def test_information_by_hand() -> None:
    """Of the token 5, which stands three times before 6 and once before 7, where 6 and 7 are as frequent in all."""
    counts = np.array([[0, 0], [3, 1], [1, 3]], np.uint32)
    expected = np.log([[1.5, 0.5], [0.5, 1.5]]).clip(0)
    np.testing.assert_allclose(module._information(counts), np.vstack([[0, 0], expected]), atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(STREAMS, st.integers(1, 9))
def test_rows(ids: list[int], dimensions: int) -> None:
    """Tokens that stand near another one have a vector, the others a row of zeros; nothing is infinite."""
    vectors = word_vectors(neighbour_information(stream(ids)), dimensions, 0)
    assert vectors.shape == (12, dimensions)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    informed = neighbour_information(stream(ids)).any(1)
    np.testing.assert_array_equal(vectors.any(1), informed)
    if informed.any():
        assert np.sqrt(np.mean(vectors[informed] ** 2)) == pytest.approx(1, rel=1e-4)


def test_tokens_with_like_neighbours_are_alike() -> None:
    """8 and 9 stand between the same two tokens, 10 and 11 between two others."""
    random = np.random.default_rng(0)
    sentences = [
        [5, random.integers(8, 10), 6] if random.random() < 0.5 else [6, random.integers(10, 12), 5] for _ in range(400)
    ]
    ids = [token for sentence in sentences for token in (*sentence, SPECIAL_IDS.sep)]
    vectors = word_vectors(neighbour_information(stream(np.array(ids))), 4, 0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    assert unit[8] @ unit[9] > 0.95
    assert unit[10] @ unit[11] > 0.95
    assert abs(unit[8] @ unit[10]) < 0.3


def test_the_seed_turns_the_axes_alone(tiny_shards: Path) -> None:
    shards = open_shards(tiny_shards)
    one, again, other = (word_vectors(neighbour_information(shards), 16, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-4)


def test_a_long_stream_is_counted_in_parts(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pairs are lost between two parts; of a stream that is too long, parts from the beginning to the end count."""
    shards = open_shards(tiny_shards)
    whole = module._neighbour_counts(shards).sum()
    monkeypatch.setattr(module, "_CHUNK_TOKENS", 500)
    assert 0.97 < module._neighbour_counts(shards).sum() / whole < 1
    monkeypatch.setattr(module, "MOST_TOKENS", 2000)
    read: list[int] = []
    original = shards.read
    monkeypatch.setattr(shards, "read", lambda start, count: (read.append(start), original(start, count))[1])
    assert module._neighbour_counts(shards).sum() < 0.3 * whole
    assert len(read) == 4
    assert read[0] == 0
    assert read[-1] >= shards.token_count - 500


def test_a_large_vocabulary_has_fewer_neighbours(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most frequent ones, so that memory stays bounded."""
    monkeypatch.setattr(module, "MOST_CELLS", 106 * 10)
    shards = open_shards(tiny_shards)
    assert module._neighbour_counts(shards).shape == (106, 20)
    assert word_vectors(neighbour_information(shards), 32, 0).any(1).sum() > 90
