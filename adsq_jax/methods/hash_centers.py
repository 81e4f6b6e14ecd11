"""Hash centers: a fixed hash code for each class, which an image's code should come near, with large distances between them.

Sources: CSQ, Yuan et al., CVPR 2020, algorithm 1, and OrthoHash, Hoe et al., NeurIPS 2021, take rows of Sylvester's matrices,
and their opposites, where the code length is a power of 2, else random signs. Here Paley's matrices (Journal of Mathematics and
Physics 12, 1933) serve more lengths, and where no matrix has enough rows, a linear code is searched for: this project.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

_STARTS = 16  # of the search for a linear code; fewer for more than 64 words
_SWEEPS = 20  # of a start, over all bits; most end after 3 to 8, at a local optimum
_ENTRIES = 2**18  # messages x columns that the search tries for each bit: milliseconds


def random_signs(rows: int, bits: int, *, seed: int) -> jax.Array:
    """Return random signs, float32[rows, bits] in {-1, +1}; the same seed and shape give the same ones."""
    return jnp.asarray(_drawn(rows, bits, seed))


def hash_centers(classes: int, bits: int, *, seed: int) -> jax.Array:
    """Return a hash center for each class.

    If there is a Hadamard matrix of Sylvester's, of Paley's first kind, or a doubled one, for instance of 8, 12, 16, 24, 32, 48
    or 64 bits, its rows and their opposites serve up to 2 `bits` classes: any two differ in half of the bits, opposites in
    all. Else the centers are words of a linear code that a search made; `smallest_distance` says what it reached.

    Args:
      classes: c, at least 1.
      bits: the code length, at least 1.
      seed: seed of the search, and of which words are taken; Hadamard's rows are the same for all seeds.

    Returns:
      float32[c, bits] in {-1, +1}; distinct, unless c is above 2^bits.

    Source: CSQ, Yuan et al., CVPR 2020, algorithm 1; this project.
    """
    return jnp.asarray(_centers(classes, bits, seed))


def linear_code(dimension: int, bits: int, *, seed: int) -> jax.Array:
    """Return all words of a linear code with a large smallest distance.

    The code is known by the column of its generator matrix for each bit. From some random starts, each column in turn is
    exchanged for the one that lowers sum 2^-weight over the words most, until none does. Up to 7 dimensions and 64 bits the
    smallest distance is nearly always that of the best linear codes, up to 10 it is at most 3 below.

    Args:
      dimension: the binary logarithm of the number of words, at least 1.
      bits: the code length, at least 1.
      seed: seed of starts, and of the columns that are tried where there are too many.

    Returns:
      float32[2^dimension, bits] in {-1, +1}; distinct, unless `dimension` is above `bits`.

    Source: this project. The best distances are in tables of Brouwer and Grassl (codetables.de).
    """
    return jnp.asarray(_linear_code(dimension, bits, seed))


def majority_centers(labels: jax.Array, bits: int, *, seed: int) -> jax.Array:
    """Return the center of each image: its class's, or bit by bit the majority of its classes' centers.

    Args:
      labels: multi-hot, float32[batch, c] in {0, 1}.
      bits: the code length.
      seed: the run's; bits without a majority, or without a label, get a sign that is drawn once for all images.

    Returns:
      float32[batch, bits] in {-1, +1}.

    Source: CSQ, Yuan et al., CVPR 2020, which draws the sign for each image.
    """
    votes = labels @ hash_centers(labels.shape[1], bits, seed=seed)  # [batch, bits]
    votes = jnp.where(votes == 0, random_signs(1, bits, seed=seed + 1), votes)
    return jnp.where(votes > 0, jnp.float32(1), jnp.float32(-1))


def smallest_distance(centers: jax.Array | np.ndarray) -> int:
    """Return the smallest Hamming distance between two of the centers, float32[c, bits] in {-1, +1}; for one, its length."""
    signs = np.asarray(centers, np.float32)
    products = signs @ signs.T  # [c, c]
    np.fill_diagonal(products, -signs.shape[1])
    return int((signs.shape[1] - products.max()) / 2)


@cache
def _drawn(rows: int, bits: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, rows, bits]).choice(np.array([-1, 1], np.float32), (rows, bits))


@cache
def _centers(classes: int, bits: int, seed: int) -> np.ndarray:
    matrix = _hadamard(bits) if classes <= 2 * bits else None
    if matrix is not None:
        rows = _with_even_bits(matrix[:classes])
        return np.concatenate([rows, -rows])[:classes]
    words = _linear_code(max(1, (classes - 1).bit_length()), bits, seed)
    return words[np.random.default_rng([seed, classes]).permutation(len(words))[:classes]]


def _with_even_bits(rows: np.ndarray) -> np.ndarray:
    """Give orthogonal rows signs, which keep their distances: else a bit that is +1 in all of them says nothing."""
    total, signed = np.zeros_like(rows[0]), []
    for row in rows:
        signed.append(min((row, -row), key=lambda signs: ((total + signs) ** 4).sum()))
        total = total + signed[-1]
    return np.stack(signed)


@cache
def _hadamard(order: int) -> np.ndarray | None:
    """Return a matrix of -1 and +1 with orthogonal rows, float32[order, order]; None where no construction here has one."""
    if order == 1:
        return np.ones((1, 1), np.float32)
    is_power_of_2 = order & (order - 1) == 0
    if not is_power_of_2 and order % 4 == 0 and _is_prime(order - 1):
        return _paley(order - 1)
    half = _hadamard(order // 2) if order % 2 == 0 else None
    return None if half is None else np.block([[half, half], [half, -half]])


def _paley(q: int) -> np.ndarray:
    """Return Paley's matrix of order q + 1, for a prime q = 3 mod 4: I + S, S skew, of the residues' characters x_(j - i)."""
    characters = np.full(q, -1, np.float32)
    characters[np.arange(1, q) ** 2 % q] = 1
    characters[0] = 0
    steps = np.arange(q)
    skew = np.ones((q + 1, q + 1), np.float32)
    skew[1:, 0], skew[0, 0] = -1, 0
    skew[1:, 1:] = characters[(steps[None, :] - steps[:, None]) % q]
    return skew + np.eye(q + 1, dtype=np.float32)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


@cache
def _linear_code(dimension: int, bits: int, seed: int) -> np.ndarray:
    random = np.random.default_rng([seed, dimension, bits])
    messages = np.arange(1, 2**dimension)
    units = 2 ** np.arange(dimension)
    others = random.permutation(messages[(messages & (messages - 1)) != 0])
    columns = np.concatenate([units, others])[: max(_ENTRIES >> dimension, 2 * bits, dimension)]
    ones = (np.bitwise_count(messages[:, None] & columns) & 1).astype(np.int8)  # bits of the words, [words - 1, columns]
    codes = []
    for _ in range(max(1, min(_STARTS, 2 ** (10 - min(dimension, 10))))):
        drawn = random.integers(len(columns), size=bits)
        drawn[:dimension] = np.arange(dimension)[:bits]  # unit vectors: all words differ
        codes += [_exchanged(drawn, ones), drawn]
    best = max(codes, key=lambda chosen: ones[:, chosen].sum(axis=1).min())
    words = np.bitwise_count(np.arange(2**dimension)[:, None] & columns[best]) & 1
    return 1 - 2 * words.astype(np.float32)


def _exchanged(chosen: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """Exchange columns, one at a time, for those that give the least sum of 2^-weight over the words other than 0."""
    chosen, factors = chosen.copy(), 0.5 ** ones.T.astype(np.float32)  # [columns, words]
    weights = ones[:, chosen].sum(axis=1, dtype=np.int64)
    for _ in range(_SWEEPS):
        before = chosen.copy()
        for bit in range(len(chosen)):
            rest = weights - ones[:, chosen[bit]]
            costs = factors @ np.float32(0.5) ** (rest - rest.min()).astype(np.float32)
            column = int(np.argmin(costs))
            if costs[column] < costs[chosen[bit]] * (1 - 1e-5):  # not by rounding, which could go on for ever
                chosen[bit] = column
            weights = rest + ones[:, chosen[bit]]
        if np.array_equal(before, chosen):
            break
    return chosen
