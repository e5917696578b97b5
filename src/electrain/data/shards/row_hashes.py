"""Random numbers of NumPy as a function of (seed, purpose, row); see `randomness`, which has those of PyTorch."""

import zlib

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: multiples spread evenly over 64 bits
FIRST = 0xBF58476D1CE4E5B9
SECOND = 0x94D049BB133111EB
_WORD = (1 << 64) - 1


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits, so that no two keys collide."""
    values = values + np.uint64(GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(SECOND)
    return values ^ (values >> np.uint64(31))


def _mix_number(value: int) -> int:
    value = (value + GOLDEN) & _WORD
    value = (value ^ (value >> 30)) * FIRST & _WORD
    value = (value ^ (value >> 27)) * SECOND & _WORD
    return value ^ (value >> 31)


def key_of(seed: int, purpose: str) -> int:
    """The number that begins the hashes of a seed and a purpose."""
    # Each part of the key is mixed before the next is added: nearby seeds, rows and indices must not cancel out, as
    # they would in hash(seed + row + index).
    return _mix_number(_mix_number(seed & _WORD) ^ zlib.crc32(purpose.encode()))


def random_bits(seed: int, purpose: str, numbers: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """(len(numbers), count) uint64: `count` hashes for each number, independent between purposes and seeds.

    Args:
        purpose: what the numbers decide ("packing", "masks"); without it, a row's mask would follow from its order.
        numbers: (rows,) int64, usually the numbers of rows in the run.
    """
    per_number = _mix(numbers.astype(np.uint64) ^ np.uint64(key_of(seed, purpose)))
    return _mix(per_number[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN))


def random_uniforms(seed: int, purpose: str, numbers: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(len(numbers), count) float64 in [0, 1): `count` uniform numbers for each number."""
    bits = random_bits(seed, purpose, numbers, count) >> np.uint64(11)  # a float64 holds 53 bits exactly
    return bits.astype(np.float64) * 2.0**-53


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
