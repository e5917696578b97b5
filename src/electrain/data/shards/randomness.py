"""Random numbers as a function of (seed, purpose, row): no generator state, so resuming needs none.

Rows are numbered through the whole run, so a row's number stands for the step and the place in the step. Every value is
a hash of its key and its own index, as in counter-based generators (Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"). A generator with a state would have to be saved, restored and split among processes, and one draw
more or less would change all later ones. Here any process can draw any part of any batch in any order.
See docs/decisions/0001-randomness-is-a-function-of-the-row.md.

The hash is written twice. Of NumPy's numbers there are few, and they decide which rows are read. Those of PyTorch fill
whole rows, and are computed wherever the rows are. Both give the same bits.
"""

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: multiples spread evenly over 64 bits
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_WORD = (1 << 64) - 1


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits, so that no two keys collide."""
    values = values + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(31))


def _mix_number(value: int) -> int:
    value = (value + _GOLDEN) & _WORD
    value = (value ^ (value >> 30)) * _FIRST & _WORD
    value = (value ^ (value >> 27)) * _SECOND & _WORD
    return value ^ (value >> 31)


def _mix_in_place(values: Tensor) -> Tensor:
    # PyTorch has no arithmetic of unsigned numbers on every device. Products of int64 wrap to the same bits; a shift
    # must clear the copies of the sign that it moves in.
    values += _signed(_GOLDEN)
    values ^= _shifted(values, 30)
    values *= _signed(_FIRST)
    values ^= _shifted(values, 27)
    values *= _signed(_SECOND)
    values ^= _shifted(values, 31)
    return values


def _shifted(values: Tensor, bits: int) -> Tensor:
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _key(seed: int, purpose: str) -> int:
    # Each part of the key is mixed before the next is added: nearby seeds, rows and indices must not cancel out, as
    # they would in hash(seed + row + index).
    return _mix_number(_mix_number(seed & _WORD) ^ zlib.crc32(purpose.encode()))


def random_bits(seed: int, purpose: str, numbers: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """(len(numbers), count) uint64: `count` hashes for each number, independent between purposes and seeds.

    Args:
        purpose: what the numbers decide ("packing", "masks"); without it, a row's mask would follow from its order.
        numbers: (rows,) int64, usually the numbers of rows in the run.
    """
    per_number = _mix(numbers.astype(np.uint64) ^ np.uint64(_key(seed, purpose)))
    return _mix(per_number[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN))


def random_uniforms(seed: int, purpose: str, numbers: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(len(numbers), count) float64 in [0, 1): `count` uniform numbers for each number."""
    bits = random_bits(seed, purpose, numbers, count) >> np.uint64(11)  # a float64 holds 53 bits exactly
    return bits.astype(np.float64) * 2.0**-53


def row_bits(seed: int, purpose: str, numbers: Tensor, count: int) -> Tensor:
    """(rows, count) int64: the bits of `random_bits`, on the device of the numbers.

    Args: numbers: (rows,) int64.
    """
    per_number = _mix_in_place(numbers ^ _signed(_key(seed, purpose)))
    steps = torch.arange(1, count + 1, device=numbers.device) * _signed(_GOLDEN)
    return _mix_in_place(per_number[:, None] + steps)


def row_uniforms(seed: int, purpose: str, numbers: Tensor, count: int) -> Tensor:
    """(rows, count) float64 in [0, 1): the numbers of `random_uniforms`, on the device of the row numbers."""
    return _shifted(row_bits(seed, purpose, numbers, count), 11).to(torch.float64).mul_(2.0**-53)


def below_one(uniforms: Tensor) -> Tensor:
    """The numbers in [0, 1) as float32.

    Rounding makes some of them 1, which a search in cumulated probabilities would answer with a word beyond the last
    one; those become the largest float32 below 1.
    """
    return uniforms.to(torch.float32).clamp_(max=1 - 2.0**-24)


def first_in_order(bits: Tensor, candidates: Tensor, count: int) -> Tensor:
    """(rows, count) int64: the places of the candidates with the smallest hashes, in order; then those of the others.

    Sorting random keys draws without replacement: any subset is as likely as any other. Of equal keys the first comes
    first, so that what shares a key stays together and in order.

    Args:
        bits: (rows, length) int64; from `row_bits`. Their upper 53 bits count, as those of `row_uniforms` do.
        candidates: (rows, length) bool.
    """
    length = bits.shape[1]
    if length > 1 << 10:
        keys = torch.where(candidates, _shifted(bits, 11), 1 << 53)
        return keys.sort(dim=1, stable=True).indices[:, :count]
    # A key of 53 bits and the place below it fill a number that is never drawn twice. Selecting the smallest of those
    # is many times faster than sorting all. The sign makes candidates negative: they come before all others.
    places = torch.arange(length, device=bits.device)
    keys = (bits >> 1).bitwise_or_(_signed(1 << 63)).bitwise_and_(-1 << 10).bitwise_or_(places)
    smallest = torch.where(candidates, keys, places).topk(count, dim=1, largest=False)
    return smallest.values.bitwise_and_((1 << 10) - 1)


def permuted(seed: int, purpose: str, numbers: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The places of `numbers`, each below `size`, in a random permutation of `range(size)`, in constant memory.

    A shuffled list of all rows would take gigabytes for a large corpus and would have to be made again on resuming. A
    Feistel network is a permutation whatever its round function is: each round swaps the two halves of the bits and
    XORs one with a hash of the other, which the inverse can undo. It permutes a power of four; a value that lands at
    `size` or above goes through again until it lands below, which keeps it a permutation of `range(size)` ("cycle
    walking") and takes fewer than four walks on average.

    Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains".
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    keys = random_bits(seed, purpose, np.zeros(1, np.int64), 4)[0]
    result = numbers.astype(np.uint64)
    outside = np.ones(len(result), np.bool_)
    while outside.any():
        left, right = result[outside] >> shift, result[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        result[outside] = (left << shift) | right
        outside = result >= np.uint64(size)
    return result.astype(np.int64)
