"""What noise may take and move: never special tokens, never a part of a word, never more than asked for."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from electrain.data.shards.rows import PackedBatch
from electrain.pretraining.objectives import noise
from electrain.pretraining.objectives.masking import Masking, mask_batch
from tiny_pretraining import as_arrays, as_tensors

MASK, VOCABULARY = 4, 40
CONTINUES = np.arange(VOCABULARY) >= 25  # the last fifteen tokens go on with a word
NOISES = ["whole-word", "span", "deletion", "shuffle"]


def batch_of(seed: int, rows: int = 6, length: int = 30) -> PackedBatch:
    """Rows of random words of one to four tokens, some padded."""
    random = np.random.default_rng(seed)
    ids = random.integers(5, VOCABULARY, (rows, length))
    is_real = np.arange(length) < random.integers(6, length + 1, (rows, 1))
    ids[:, 0] = 2
    ends = is_real.sum(1) - 1
    ids[np.arange(rows), ends] = 3
    ids[np.arange(rows), ends // 2] = 3
    ids[~is_real] = 0
    is_special = np.isin(ids, (0, 2, 3))
    return PackedBatch(ids, np.zeros_like(ids), is_real, is_special, np.arange(rows, dtype=np.int64))


def masked(batch: PackedBatch, kind: Any, fraction: float, seed: int = 0) -> Any:
    settings = Masking(fraction, seed, mask_id=MASK, noise=kind, continues_word=torch.from_numpy(CONTINUES))
    return as_arrays(mask_batch(as_tensors(batch), settings))


def word_numbers(batch: PackedBatch, continues: NDArray[np.bool_]) -> Any:
    """The function of this name, of arrays, as are the next two."""
    return noise.word_numbers(as_tensors(batch), torch.from_numpy(continues)).numpy()


def span_numbers(words: NDArray[np.int64], batch: PackedBatch, seed: int, mean: float) -> Any:
    return noise.span_numbers(torch.from_numpy(words), as_tensors(batch), seed, mean).numpy()


def moved_words(batch: PackedBatch, words: Any, wanted: Any, seed: int, *, exchanges_neighbours: bool) -> Any:
    given = as_tensors(batch), torch.from_numpy(words), torch.from_numpy(wanted)
    return tuple(x.numpy() for x in noise.moved_words(*given, seed, exchanges_neighbours=exchanges_neighbours))


@given(st.integers(0, 1000), st.sampled_from(NOISES), st.sampled_from([0.15, 0.4]))
def test_special_tokens_are_never_touched(seed: int, kind: str, fraction: float) -> None:
    batch = batch_of(seed)
    made = masked(batch, kind, fraction, seed)
    rows, slots = np.nonzero(made.is_selected)
    assert not batch.is_special[rows, made.positions[rows, slots]].any()
    assert (made.masked_ids[batch.is_special] == batch.token_ids[batch.is_special]).all()
    if made.base_ids is not None:
        assert (made.base_ids[batch.is_special] == batch.token_ids[batch.is_special]).all()
    assert made.is_selected.any(1).all()
    assert (made.is_selected.sum(1) <= np.maximum(1, np.round(batch.is_real.sum(1) * fraction))).all()
    for row in range(len(made.positions)):
        chosen = made.positions[row][made.is_selected[row]]
        assert (np.diff(chosen) > 0).all()


@given(st.integers(0, 1000), st.sampled_from(["whole-word", "span"]))
def test_no_word_is_taken_in_part(seed: int, kind: str) -> None:
    """Unless it is the only one taken and longer than what was asked for."""
    batch = batch_of(seed)
    made = masked(batch, kind, 0.3, seed)
    words = word_numbers(batch, CONTINUES)
    for row in range(len(words)):
        chosen = set(made.positions[row][made.is_selected[row]].tolist())
        taken = {int(words[row, place]) for place in chosen}
        whole = {place for place in range(words.shape[1]) if int(words[row, place]) in taken}
        assert chosen == whole or len(taken) == 1


def test_words_by_hand() -> None:
    ids = np.array([[2, 10, 30, 11, 3, 31, 32, 3, 0]])  # [CLS] a ##b c [SEP] ##d ##e [SEP] [PAD]
    is_special = np.isin(ids, (0, 2, 3))
    batch = PackedBatch(ids, ids * 0, ids > 0, is_special, np.zeros(1, np.int64))
    assert word_numbers(batch, CONTINUES).tolist() == [[0, 1, 1, 2, 3, 4, 4, 5, 6]]
    begins = np.array([[True, True, True, False, True, True, True, True, True]])
    known = PackedBatch(ids, ids * 0, ids > 0, is_special, np.zeros(1, np.int64), begins)
    assert word_numbers(known, CONTINUES).tolist() == [[0, 1, 2, 2, 3, 4, 5, 6, 7]]


def test_spans_have_the_mean_length_asked_for() -> None:
    ids = np.full((200, 200), 10)
    batch = PackedBatch(ids, ids * 0, ids > 0, ids < 0, np.arange(200, dtype=np.int64))
    words = word_numbers(batch, CONTINUES)
    for mean in (1.0, 3.0):
        spans = span_numbers(words, batch, 0, mean)
        # 40,000 words: the count of spans is within 3% of 40,000 / mean but for the row ends
        assert spans[:, -1].sum() / 200 == pytest.approx(200 / mean, rel=0.05)


@given(st.integers(0, 1000), st.booleans())
def test_moved_words_are_the_same_words(seed: int, neighbours: bool) -> None:
    batch = batch_of(seed)
    words = word_numbers(batch, CONTINUES)
    wanted = np.full(len(words), 8, np.int64)
    moved, is_moved = moved_words(batch, words, wanted, seed, exchanges_neighbours=neighbours)
    assert (np.sort(moved, 1) == np.sort(batch.token_ids, 1)).all()
    assert (moved == batch.token_ids)[~is_moved].all()
    assert (is_moved.sum(1) <= 8).all()
    assert is_moved.any()


def test_neighbours_change_places() -> None:
    ids = np.array([[2, 10, 11, 30, 12, 3]])  # [CLS] a b ##c d [SEP]
    batch = PackedBatch(ids, ids * 0, ids > 0, np.isin(ids, (2, 3)), np.zeros(1, np.int64))
    seen = set()
    for seed in range(20):
        moved, _ = moved_words(batch, word_numbers(batch, CONTINUES), np.array([3]), seed, exchanges_neighbours=True)
        seen.add(tuple(moved[0].tolist()))
    assert seen == {(2, 11, 30, 10, 12, 3), (2, 10, 12, 11, 30, 3)}


@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_a_function_of_the_row(kind: str) -> None:
    batch = batch_of(3)
    whole = masked(batch, kind, 0.3)
    part = PackedBatch(*(x[[2, 4]] for x in (batch.token_ids, batch.token_type_ids, batch.is_real, batch.is_special)),
                       batch.row_numbers[[2, 4]])  # fmt: skip
    alone = masked(part, kind, 0.3)
    assert (alone.masked_ids == whole.masked_ids[[2, 4]]).all()
    assert (alone.positions == whole.positions[[2, 4]]).all()
    other = masked(batch, kind, 0.3, seed=1)
    assert (other.masked_ids != whole.masked_ids).any()
