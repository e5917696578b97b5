"""Word vectors from counts of which tokens stand near each other, as a network's first word embeddings."""

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.shards import Shards

# Neighbours at most so many tokens away count, a neighbour at distance d by 60 / d: whole numbers up to here.
WINDOW = 5
_WEIGHT = 60
# Counted tokens, evenly spaced parts of a longer stream: more change little, and no 32-bit counter can overflow.
MOST_TOKENS = 20_000_000
_CHUNK_TOKENS = 1_000_000
# Neighbours are told apart if they are among the most frequent tokens; their number is bounded by memory, too.
MOST_NEIGHBOURS, MOST_CELLS = 2048, 1 << 25
# Smooths the frequencies of neighbours, so that rare ones do not weigh too much (Levy et al. 2015, section 3.2).
_SMOOTHING = 0.75
_ROWS_AT_ONCE = 1024


def neighbour_information(shards: Shards) -> NDArray[np.float64]:
    """(vocabulary, 2 x neighbours): of each token with frequent ones to its left, and with frequent ones to its right.

    It is the positive pointwise mutual information; 0 for special tokens, and where two tokens never meet.
    """
    return _information(_neighbour_counts(shards))


def word_vectors(information: NDArray[np.float64], dimensions: int, seed: int) -> NDArray[np.float32]:
    """Vectors that are alike for tokens with like neighbours.

    What `neighbour_information` found is factorised: each of the largest singular vectors by the root of its singular
    value (Levy and Goldberg 2014), in axes that the seed turns at random.

    Returns: (vocabulary, dimensions) float32, with a root mean square of 1; rows of zeros for tokens about which the
        counts say nothing.
    """
    found = information.any(1)
    vectors = np.zeros((len(information), dimensions), np.float32)
    if not found.any():
        return vectors
    rank = min(dimensions, *information.shape)
    from sklearn.utils.extmath import randomized_svd  # its import takes a second

    axes, sizes, _ = randomized_svd(information, rank, n_iter=4, random_state=0)
    # The first singular vectors are the largest. Turned, all dimensions of the network begin alike.
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimensions, dimensions)))
    turned = (axes * np.sqrt(sizes) @ turn[:rank])[found]
    vectors[found] = turned / np.sqrt(np.mean(turned**2))
    return vectors


def _neighbour_counts(shards: Shards) -> NDArray[np.uint32]:
    """(vocabulary, 2 x neighbours): how often, weighed, a frequent token stands left of a token, and right of it."""
    size = shards.vocabulary_size
    frequency = shards.unigram_counts.copy()
    frequency[list(shards.special_ids.all)] = 0
    neighbours = np.argsort(-frequency, kind="stable")[: min(MOST_NEIGHBOURS, MOST_CELLS // size, size)]
    neighbours = neighbours[frequency[neighbours] > 0]
    column = np.full(size, -1, np.int64)
    column[neighbours] = np.arange(len(neighbours))
    counts = np.zeros(size * 2 * len(neighbours), np.uint32)
    chunks = -(-shards.token_count // _CHUNK_TOKENS)
    for chunk in np.unique(np.linspace(0, chunks - 1, min(chunks, MOST_TOKENS // _CHUNK_TOKENS)).astype(np.int64)):
        start = int(chunk) * _CHUNK_TOKENS
        ids = shards.read(start, min(_CHUNK_TOKENS, shards.token_count - start))
        document = np.cumsum(ids == shards.special_ids.sep)  # an end belongs to the next, and counts for nobody
        columns = column[ids]
        rows = np.where(np.isin(ids, shards.special_ids.all), -1, ids * 2 * len(neighbours))
        for distance in range(1, min(WINDOW, len(ids) - 1) + 1):
            left, right = slice(None, -distance), slice(distance, None)
            is_together = document[left] == document[right]
            for of, near, first in ((right, left, 0), (left, right, len(neighbours))):
                is_counted = is_together & (columns[near] >= 0) & (rows[of] >= 0)
                cells = (rows[of] + columns[near] + first)[is_counted]
                np.add.at(counts, cells, np.uint32(_WEIGHT // distance))
    return counts.reshape(size, -1)


def _information(counts: NDArray[np.uint32]) -> NDArray[np.float64]:
    """(vocabulary, columns): positive pointwise mutual information, 0 where two never meet."""
    result = np.zeros(counts.shape)
    share = counts.sum(0, dtype=np.float64) ** _SMOOTHING
    share /= max(share.sum(), 1e-300)
    for start in range(0, len(counts), _ROWS_AT_ONCE):  # so that no second copy of the table lies in memory
        some = counts[start : start + _ROWS_AT_ONCE].astype(np.float64)
        expected = some.sum(1, keepdims=True) * share
        np.divide(some, expected, out=some, where=some > 0)
        np.log(some, out=some, where=some > 0)
        np.maximum(some, 0, out=result[start : start + _ROWS_AT_ONCE])
    return result
