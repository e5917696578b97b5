"""Rows: full, well formed, every token in turn, and the reference implementation's packing beside ours."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from electrain.data.shards.rows import DataConfig, PackedBatch, RowSource
from electrain.data.tokenizer.tokenizer import SpecialIds
from electrain.foundation.errors import DataError
from tiny_pretraining import as_arrays

PAD, CLS, SEP = 0, 2, 3
SPECIAL_IDS = SpecialIds(pad=PAD, cls=CLS, sep=SEP, mask=4)


@dataclass
class Numbers:
    """A stream in which every token is its own place + 10, and every document ends with [SEP]."""

    document_ends: NDArray[np.int64]
    special_ids: SpecialIds = SPECIAL_IDS
    has_words: bool = False

    def __post_init__(self) -> None:
        self.token_count = int(self.document_ends[-1])
        self.tokens = np.arange(self.token_count) + 10
        self.tokens[self.document_ends - 1] = SEP

    def take(self, places: Tensor, *, with_words: bool) -> tuple[Tensor, None]:
        assert places.min() >= 0
        assert not with_words
        return torch.from_numpy(self.tokens)[places], None


def stream_of(*lengths: int) -> Numbers:
    return Numbers(np.cumsum(lengths))


streams = st.builds(lambda lengths: stream_of(*lengths), st.lists(st.integers(2, 90), min_size=20, max_size=60))
settings = st.builds(DataConfig, st.integers(8, 40), st.sampled_from([1, 2]))
seeds = st.integers(0, 2**63)


def epoch_of(source: RowSource, epoch: int = 0) -> PackedBatch:
    first = epoch * source.rows_per_epoch
    return rows_of(source, np.arange(first, first + source.rows_per_epoch))


def rows_of(source: RowSource, numbers: NDArray[np.int64]) -> PackedBatch:
    """The rows with these numbers, as arrays."""
    batch: PackedBatch = as_arrays(source.batch(numbers))
    return batch


def require_well_formed(batch: PackedBatch, config: DataConfig) -> None:
    """[CLS] first, [SEP] last, types 0 then 1 with the change after a [SEP], padding only behind."""
    assert np.array_equal(batch.is_special, np.isin(batch.token_ids, [CLS, SEP, PAD]))
    assert np.array_equal(batch.is_real, batch.token_ids != PAD)
    for ids, types, is_real in zip(batch.token_ids, batch.token_type_ids, batch.is_real, strict=True):
        count = int(is_real.sum())
        assert is_real[:count].all()
        assert ids[0] == CLS
        assert ids[count - 1] == SEP
        assert (ids[1:] != CLS).all()
        changes = np.flatnonzero(np.diff(types[:count]))
        assert len(changes) <= config.segments - 1
        assert not types[count:].any()
        assert not types[0]
        if len(changes):
            assert ids[changes[0]] == SEP
            assert changes[0] > 1  # neither segment is empty
            assert count - changes[0] > 2
        else:
            assert not types.any()


@given(streams, settings, seeds, st.integers(0, 3))
def test_rows_are_full_and_well_formed(stream: Numbers, config: DataConfig, seed: int, epoch: int) -> None:
    batch = epoch_of(RowSource(stream, config, seed), epoch)
    assert batch.token_ids.shape[1] == config.sequence_length
    assert batch.is_real.all()
    require_well_formed(batch, config)


@given(streams, settings, seeds, st.integers(0, 2))
def test_reference_rows_are_well_formed_and_stay_in_their_document(
    stream: Numbers, config: DataConfig, seed: int, epoch: int
) -> None:
    batch = epoch_of(RowSource(stream, config, seed, reference_packing=True), epoch)
    require_well_formed(batch, config)
    for ids in batch.token_ids:
        places = ids[~np.isin(ids, [CLS, SEP, PAD])] - 10
        assert len(places)
        assert (np.diff(places) == 1).all()
        assert len(set(np.searchsorted(stream.document_ends, places, side="right"))) == 1
    two = batch.token_type_ids.any(1)
    if two.any():  # the split is in the middle of a full row
        lengths = (batch.token_type_ids[two] == 0).sum(1) - (~batch.is_real[two]).sum(1) - 2
        assert lengths.max() <= (config.sequence_length - 3) // 2


def words_of(batch: PackedBatch) -> Counter[int]:
    """How often each place of the stream occurs."""
    return Counter((batch.token_ids[~batch.is_special] - 10).tolist())


@given(streams, settings, seeds)
def test_an_epoch_sees_every_token(stream: Numbers, config: DataConfig, seed: int) -> None:
    """But the last ones, fewer than one row; an ending that is cut so has its turn in another epoch."""
    seen = words_of(epoch_of(RowSource(stream, config, seed)))
    words = np.flatnonzero(stream.tokens != SEP)
    missing = [place for place in words.tolist() if place not in seen]
    assert all(place >= stream.token_count - config.sequence_length for place in missing)
    assert max(seen.values()) <= 2


def test_later_epochs_see_what_the_first_left_out() -> None:
    """Rows begin elsewhere in each epoch, so the ending that filled no row has its turn."""
    stream = stream_of(30, 17, 40, 13)
    source = RowSource(stream, DataConfig(24, 2), 0)
    words = set(np.flatnonzero(stream.tokens != SEP).tolist())
    assert set(words_of(epoch_of(source))) < words
    assert set(words_of(rows_of(source, np.arange(40 * source.rows_per_epoch)))) == words


@given(streams, seeds)
def test_reference_packing_sees_every_token_but_those_of_short_rows(stream: Numbers, seed: int) -> None:
    config = DataConfig(24, 2)
    source = RowSource(stream, config, seed, reference_packing=True)
    seen = words_of(epoch_of(source))
    assert max(seen.values()) == 1
    ends = stream.document_ends.tolist()
    rows = sum(-(-(end - start - 1) // 21) for start, end in zip([0, *ends], ends, strict=False))
    assert source.rows_per_epoch == rows


@given(streams, settings, seeds, st.booleans())
def test_rows_are_functions_of_seed_and_number(stream: Numbers, config: DataConfig, seed: int, reference: bool) -> None:
    """The same row alone, in any order, in any batch."""
    source = RowSource(stream, config, seed, reference_packing=reference)
    numbers = np.array([7, 3, 10_007, 3, source.rows_per_epoch])
    together = rows_of(source, numbers)
    for index, number in enumerate(numbers.tolist()):
        alone = rows_of(RowSource(stream, config, seed, reference_packing=reference), np.array([number]))
        assert np.array_equal(alone.token_ids[0], together.token_ids[index])
        assert np.array_equal(alone.token_type_ids[0], together.token_type_ids[index])


def test_epochs_and_seeds_differ_in_order_and_cut() -> None:
    stream = stream_of(*[30] * 40)
    source = RowSource(stream, DataConfig(24, 1), 3)
    first, second = epoch_of(source, 0), epoch_of(source, 1)
    other = epoch_of(RowSource(stream, DataConfig(24, 1), 4))
    rows = [{tuple(row) for row in batch.token_ids.tolist()} for batch in (first, second, other)]
    assert not rows[0] & rows[1]  # another shift
    assert rows[0] == rows[2]  # epoch 0 is cut alike, in another order
    assert first.token_ids.tolist() != other.token_ids.tolist()
    starts = first.token_ids[:, 1]
    assert (np.diff(starts) < 0).sum() > 10


def test_one_row_in_ten_has_one_segment() -> None:
    """Over 2,000 rows within documents; the split falls anywhere."""
    stream = stream_of(60_000)
    batch = rows_of(RowSource(stream, DataConfig(24, 2), 0), np.arange(2000))
    assert 1 - batch.token_type_ids.any(1).mean() == pytest.approx(0.1, abs=0.02)
    cuts = batch.token_type_ids.argmax(1)[batch.token_type_ids.any(1)]
    assert set(cuts.tolist()) == set(range(3, 23))
    assert not RowSource(stream, DataConfig(24, 1), 0).batch(np.arange(200)).token_type_ids.any()


def test_split_falls_where_a_document_ends() -> None:
    """The end nearest to the middle; its [SEP] serves as the separator, so that no token is lost."""
    source = RowSource(stream_of(*[8] * 300), DataConfig(24, 2), 0)
    batch = epoch_of(source)
    for ids, types in zip(batch.token_ids, batch.token_type_ids, strict=True):
        if types.any():
            cut = int(types.argmax())
            assert ids[cut - 1] == SEP
            assert 7 <= cut <= 17
            assert ids[cut] - ids[cut - 2] == 2  # the document's end lay between them


def test_reference_rows_are_cut_short_now_and_then() -> None:
    """One in twenty, to any length from 5 on."""
    stream = stream_of(*[22] * 4000)  # each document fills one row of 24
    batch = epoch_of(RowSource(stream, DataConfig(24, 2), 0, reference_packing=True))
    words = (~batch.is_special).sum(1)
    assert len(words) == 4000
    assert words.max() == 21
    short = words[words < 21]
    assert len(short) / 4000 == pytest.approx(0.05 * 16 / 17, abs=0.012)
    assert set(short.tolist()) == set(range(5, 21))
    assert 1 - batch.token_type_ids.any(1).mean() == pytest.approx(0.1, abs=0.02)


def test_too_little_text_is_said() -> None:
    with pytest.raises(DataError, match="21 tokens, too few for one row of 24"):
        RowSource(stream_of(21), DataConfig(24, 2), 0)
    assert epoch_of(RowSource(stream_of(22), DataConfig(24, 1), 0)).is_real.all()
