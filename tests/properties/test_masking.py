"""What is masked, how often, and that everything random is a function of (seed, row)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from electrain.data.shards.randomness import first_in_order, row_bits, row_uniforms
from electrain.data.shards.row_hashes import permuted, random_bits, random_uniforms
from electrain.data.shards.rows import PackedBatch
from electrain.pretraining.objectives import masking
from electrain.pretraining.objectives.masking import MaskedBatch, Masking, most_selected
from tiny_pretraining import as_arrays, as_tensors

PAD, CLS, SEP, MASK, WORDS = 0, 2, 3, 4, 200


def rows_of(real: list[int], length: int, *, first_row: int = 0, separators: int = 1, seed: int = 0) -> PackedBatch:
    """Rows of random words with these numbers of real tokens, padded to `length`."""
    random = np.random.default_rng(seed)
    ids = random.integers(5, WORDS, (len(real), length))
    is_real = np.arange(length) < np.array(real)[:, None]
    for row, count in enumerate(real):
        ids[row, 0], ids[row, count - 1] = CLS, SEP
        ids[row, random.integers(1, count, separators - 1)] = SEP
    ids = np.where(is_real, ids, PAD)
    is_special = (ids == CLS) | (ids == SEP) | (ids == PAD)
    return PackedBatch(ids, np.zeros_like(ids), is_real, is_special, first_row + np.arange(len(real)))


def choose_positions(batch: PackedBatch, *settings: Any, **named: Any) -> Any:
    """The function of this name, of arrays."""
    return tuple(x.numpy() for x in masking.choose_positions(as_tensors(batch), *settings, **named))


def mask_batch(batch: PackedBatch, settings: Masking) -> MaskedBatch:
    """The function of this name, of arrays."""
    made: MaskedBatch = as_arrays(replace(masking.mask_batch(as_tensors(batch), settings), packed=batch))
    return made


batches = st.builds(
    lambda lengths, spare, first, separators, seed: rows_of(
        lengths, max(lengths) + spare, first_row=first, separators=separators, seed=seed
    ),
    st.lists(st.integers(3, 140), min_size=1, max_size=6),
    st.integers(0, 9),
    st.integers(0, 10**12),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
fractions = st.sampled_from([0.01, 0.15, 0.25, 0.4, 0.9])
seeds = st.integers(0, 2**64 - 1)


@given(batches, fractions, seeds)
def test_positions(batch: PackedBatch, fraction: float, seed: int) -> None:
    """Distinct, ascending, never special, and as many as the fraction of the real tokens says; at least one."""
    positions, is_selected = choose_positions(batch, fraction, seed)
    assert (
        positions.shape
        == is_selected.shape
        == (len(batch.token_ids), most_selected(batch.token_ids.shape[1], fraction))
    )
    assert not positions[~is_selected].any()
    for row, chosen in enumerate(is_selected):
        places = positions[row, chosen]
        assert not batch.is_special[row, places].any()
        assert (np.diff(places) > 0).all()
        candidates = int((~batch.is_special[row]).sum())
        assert len(places) == min(max(1, round(int(batch.is_real[row].sum()) * fraction)), candidates)


@given(batches, fractions, seeds)
def test_colliding_positions(batch: PackedBatch, fraction: float, seed: int) -> None:
    """Ascending, never special, and as many draws as the fraction says, distinct or not."""
    positions, is_selected = choose_positions(batch, fraction, seed, with_collisions=True)
    for row, chosen in enumerate(is_selected):
        places = positions[row, chosen]
        assert not batch.is_special[row, places].any()
        assert (np.diff(places) >= 0).all()
        if (~batch.is_special[row]).any():
            assert len(places) == max(1, round(int(batch.is_real[row].sum()) * fraction))


@given(batches, seeds, st.sampled_from([None, WORDS]), st.booleans())
def test_masking_changes_selected_positions_only(
    batch: PackedBatch, seed: int, random_words: int | None, with_collisions: bool
) -> None:
    before = batch.token_ids.copy()
    masked = mask_batch(
        batch, Masking(0.15, seed, mask_id=MASK, random_words=random_words, with_collisions=with_collisions)
    )
    assert np.array_equal(batch.token_ids, before)
    assert masked.uniforms.dtype == np.float32
    assert ((masked.uniforms >= 0) & (masked.uniforms < 1)).all()
    may_change = np.zeros_like(batch.is_real)
    rows, slots = np.nonzero(masked.is_selected)
    may_change[rows, masked.positions[rows, slots]] = True
    assert np.array_equal(masked.masked_ids[~may_change], before[~may_change])
    if random_words is None:
        changed = masked.masked_ids != before
        assert (masked.masked_ids[changed] == MASK).all()


def selected(masked: MaskedBatch, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """`ids` at the selected positions, one after the other."""
    rows, slots = np.nonzero(masked.is_selected)
    return ids[rows, masked.positions[rows, slots]]


def fates_of(masked: MaskedBatch) -> dict[str, float]:
    now, before = selected(masked, masked.masked_ids), selected(masked, masked.packed.token_ids)
    kept = float((now == before).mean())
    masks = float((now == MASK).mean())
    return {"masked": masks, "kept": kept, "other": 1 - masks - kept}


def test_electra_masks_85_and_keeps_15_percent() -> None:
    batch = rows_of([128] * 2000, 128)
    fates = fates_of(mask_batch(batch, Masking(0.15, 1, mask_id=MASK)))
    assert fates == {"masked": pytest.approx(0.85, abs=0.006), "kept": pytest.approx(0.15, abs=0.006), "other": 0.0}


def test_bert_masks_80_keeps_10_and_randomises_10_percent() -> None:
    batch = rows_of([128] * 2000, 128)
    masked = mask_batch(batch, Masking(0.15, 1, mask_id=MASK, random_words=WORDS))
    fates = fates_of(masked)
    assert fates["masked"] == pytest.approx(0.8, abs=0.006)
    assert fates["kept"] == pytest.approx(0.1, abs=0.006)
    assert fates["other"] == pytest.approx(0.1, abs=0.006)
    now, before = selected(masked, masked.masked_ids), selected(masked, batch.token_ids)
    words = now[(now != before) & (now != MASK)]
    counts = np.bincount(words, minlength=WORDS)[5:]
    assert words.max() < WORDS
    assert counts.min() > 0.3 * counts.mean()


def test_every_place_is_as_likely() -> None:
    batch = rows_of([34] * 20_000, 34)
    positions, is_selected = choose_positions(batch, 0.15, 3)
    counts = np.bincount(positions[is_selected], minlength=34)
    assert counts[0] == counts[33] == 0
    expected = counts[1:33].mean()
    assert ((counts[1:33] - expected) ** 2 / expected).sum() < 61  # chi-square, 31 degrees, p = 0.001


def test_collisions_leave_17_7_distinct_of_19() -> None:
    """The figure of the reference implementation at length 128."""
    batch = rows_of([128] * 2000, 128, separators=2)
    positions, is_selected = choose_positions(batch, 0.15, 1, with_collisions=True)
    assert is_selected.sum(1).tolist() == [19] * 2000
    distinct = np.mean([len(set(row)) for row in positions.tolist()])
    assert distinct == pytest.approx(17.7, abs=0.1)


def test_a_position_drawn_twice_is_masked_where_either_draw_masks_it() -> None:
    """0.85 + 0.15 x 0.85 of the positions that were drawn twice."""
    batch = rows_of([128] * 3000, 128)
    masked = mask_batch(batch, Masking(0.15, 1, mask_id=MASK, with_collisions=True))
    twice = []
    for row in range(3000):
        places, counts = np.unique(masked.positions[row, masked.is_selected[row]], return_counts=True)
        twice += (masked.masked_ids[row, places[counts == 2]] == MASK).tolist()
    assert np.mean(twice) == pytest.approx(1 - 0.15**2, abs=0.01)


@given(st.integers(1, 6), st.integers(0, 10**9), seeds, st.booleans())
def test_a_row_alone_equals_the_row_in_a_batch(rows: int, first: int, seed: int, with_collisions: bool) -> None:
    batch = rows_of([40] * rows, 40, first_row=first)
    together = mask_batch(batch, Masking(0.15, seed, mask_id=MASK, with_collisions=with_collisions, random_words=WORDS))
    row = rows - 1
    parts = (batch.token_ids, batch.token_type_ids, batch.is_real, batch.is_special, batch.row_numbers)
    alone = PackedBatch(*(part[[row]] for part in parts))
    masked = mask_batch(alone, Masking(0.15, seed, mask_id=MASK, with_collisions=with_collisions, random_words=WORDS))
    for name in ("masked_ids", "positions", "is_selected", "uniforms"):
        assert np.array_equal(getattr(masked, name)[0], getattr(together, name)[row]), name


def test_seeds_and_rows_mask_differently() -> None:
    def places(**changes: Any) -> list[list[int]]:
        settings: dict[str, Any] = {"first_row": 0, "key": 0} | changes
        batch = rows_of([128] * 4, 128, first_row=settings["first_row"])
        positions, _ = choose_positions(batch, 0.15, settings["key"])
        chosen: list[list[int]] = positions.tolist()
        return chosen

    assert places() == places()
    assert len({tuple(row) for row in places() + places(key=1) + places(first_row=4)}) == 12


@given(st.integers(1, 3000), seeds, st.text(max_size=9))
def test_permuted_is_a_permutation(size: int, seed: int, purpose: str) -> None:
    places = permuted(seed, purpose, np.arange(size), size)
    assert sorted(places.tolist()) == list(range(size))


@given(st.integers(1, 2**40), seeds, st.data())
def test_permuted_one_by_one_in_huge_ranges(size: int, seed: int, data: st.DataObject) -> None:
    numbers = np.array(data.draw(st.lists(st.integers(0, size - 1), unique=True, min_size=1, max_size=9)), np.int64)
    places = permuted(seed, "order", numbers, size)
    assert ((places >= 0) & (places < size)).all()
    assert len(set(places.tolist())) == len(numbers)
    assert [int(permuted(seed, "order", numbers[[i]], size)[0]) for i in range(len(numbers))] == places.tolist()


def test_permuted_shuffles_well() -> None:
    """No trend and no neighbours kept together: correlations of 10,000 places stay below 0.04."""
    size = 10_000
    for seed in range(3):
        places = permuted(seed, "order 0", np.arange(size), size)
        assert abs(np.corrcoef(places, np.arange(size))[0, 1]) < 0.04
        assert abs(np.corrcoef(places[1:], places[:-1])[0, 1]) < 0.04
        other = permuted(seed, "order 1", np.arange(size), size)
        assert abs(np.corrcoef(places, other)[0, 1]) < 0.04


def test_uniforms_are_uniform_and_independent() -> None:
    """Across numbers, indices, purposes and seeds: chi-square over 100 cells, correlations below 0.02."""
    numbers = np.arange(25_000)
    drawn = random_uniforms(5, "positions", numbers, 4)
    assert drawn.shape == (25_000, 4)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.histogram(drawn, 100, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 148  # 99 degrees of freedom, p = 0.001
    others = [
        random_uniforms(5, "masking", numbers, 4),
        random_uniforms(6, "positions", numbers, 4),
        random_uniforms(5, "positions", numbers + 1, 4),
        np.roll(drawn, 1, axis=1),
    ]
    for other in others:
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.02
    cells = np.histogram2d(drawn[:, 0], drawn[:, 1], 10, [[0, 1], [0, 1]])[0]
    assert ((cells - 250) ** 2 / 250).sum() < 148


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=8), seeds, st.integers(1, 9))
def test_uniforms_do_not_depend_on_their_neighbours(numbers: list[int], seed: int, count: int) -> None:
    together = random_uniforms(seed, "samples", np.array(numbers, np.int64), count)
    for index, number in enumerate(numbers):
        alone = random_uniforms(seed, "samples", np.array([number], np.int64), count + 3)[0, :count]
        assert alone.tolist() == together[index].tolist()


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=8), seeds, st.integers(1, 9), st.text(max_size=9))
def test_numpy_and_torch_draw_the_same_numbers(numbers: list[int], seed: int, count: int, purpose: str) -> None:
    rows = np.array(numbers, np.int64)
    bits = row_bits(seed, purpose, torch.from_numpy(rows), count).numpy().view(np.uint64)
    assert np.array_equal(bits, random_bits(seed, purpose, rows, count))
    drawn = row_uniforms(seed, purpose, torch.from_numpy(rows), count).numpy()
    assert np.array_equal(drawn, random_uniforms(seed, purpose, rows, count))


@given(st.sampled_from([1, 7, 1024, 1025]), st.integers(0, 2**32), st.sampled_from([1, 3, 64]), st.data())
def test_first_in_order_is_a_stable_sort(length: int, seed: int, different: int, data: st.DataObject) -> None:
    """Whatever the length, also where many hashes differ in no bit that counts."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2**64, (3, different), np.uint64)[:, random.integers(0, different, length)]
    bits ^= random.integers(0, 2**11, bits.shape, np.uint64)  # the bits that do not count
    bits[0, 0] |= np.uint64(2**64 - 2**11)  # the largest key of all still comes before the others
    candidates = random.random(bits.shape) < 0.7
    count = data.draw(st.integers(1, length))
    keys = np.where(candidates, (bits >> np.uint64(11)).astype(np.float64), np.inf)
    expected = np.argsort(keys, axis=1, kind="stable")[:, :count]
    found = first_in_order(torch.from_numpy(bits.view(np.int64)), torch.from_numpy(candidates), count)
    assert np.array_equal(found, expected)
