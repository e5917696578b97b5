"""Random numbers as a function of (seed, purpose, row): no generator state, so resuming needs none.

Rows are numbered through the whole run, so a row's number stands for the step and the place in the step. Every value is
a hash of its key and its own index, as in counter-based generators (Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"). A generator with a state would have to be saved, restored and split among processes, and one draw
more or less would change all later ones. Here any process can draw any part of any batch in any order.
See docs/decisions/0001-randomness-is-a-function-of-the-row.md.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: multiples spread evenly over 64 bits
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits, so that no two keys collide."""
    with np.errstate(over="ignore"):
        values = values + _GOLDEN
        values = (values ^ (values >> np.uint64(30))) * _FIRST
        values = (values ^ (values >> np.uint64(27))) * _SECOND
        return values ^ (values >> np.uint64(31))


def random_bits(seed: int, purpose: str, numbers: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """(len(numbers), count) uint64: `count` hashes for each number, independent between purposes and seeds.

    Args:
        purpose: what the numbers decide ("packing", "masks"); without it, a row's mask would follow from its order.
        numbers: (rows,) int64, usually the numbers of rows in the run.
    """
    # Each part of the key is mixed before the next is added: nearby seeds, rows and indices must not cancel out, as
    # they would in hash(seed + row + index).
    key = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)) ^ np.uint64(zlib.crc32(purpose.encode()))
    per_number = _mix(numbers.astype(np.uint64) ^ _mix(key))
    with np.errstate(over="ignore"):
        return _mix(per_number[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)


def random_uniforms(seed: int, purpose: str, numbers: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(len(numbers), count) float64 in [0, 1): `count` uniform numbers for each number."""
    bits = random_bits(seed, purpose, numbers, count) >> np.uint64(11)  # a float64 holds 53 bits exactly
    return bits.astype(np.float64) * 2.0**-53


def below_one(uniforms: NDArray[np.float64]) -> NDArray[np.float32]:
    """The numbers in [0, 1) as float32.

    Rounding makes some of them 1, which a search in cumulated probabilities would answer with a word beyond the last
    one; those become the largest float32 below 1.
    """
    return np.minimum(uniforms.astype(np.float32), np.float32(1 - 2**-24))


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
