"""Hash codes: from relaxed to binary, to packed bytes and back, and the B-step that learns them.

Hash codes are int8[n, bits] in {-1, +1}; packed codes are uint8[n, ceil(bits / 8)], little bit order, 1 for +1, padded with
zeros. The B-step is NumPy in float64 on purpose: it runs once a round, sums over the whole training set, and decides by the
sign of differences of large numbers; on accelerators float32 sums would flip bits that should stay.
"""

import numpy as np

MAX_BITS = 256
BIT_ORDER = "little; 1 is +1; padding is 0"  # of packed codes, for manifests


def binarize(relaxed_codes: np.ndarray) -> np.ndarray:
    """Signs of relaxed codes, with sgn(0) = +1.

    Args:
      relaxed_codes: float[..., bits].

    Returns:
      int8[..., bits] in {-1, +1}.

    Raises:
      ValueError: a relaxed code is NaN.

    Source: this project; no other function decides on sgn(0).
    """
    if np.isnan(relaxed_codes).any():
        raise ValueError("relaxed codes hold NaN, which has no sign: look for it where they come from")
    return np.where(np.asarray(relaxed_codes) < 0, -1, 1).astype(np.int8)


def pack(hash_codes: np.ndarray) -> np.ndarray:
    """Packs hash codes into bytes.

    Args:
      hash_codes: int[n, bits] in {-1, +1}.

    Returns:
      uint8[n, ceil(bits / 8)], little bit order, 1 = +1, padding zero.

    Raises:
      ValueError: the codes are not a matrix of -1 and +1.

    Source: this project.
    """
    hash_codes = np.asarray(hash_codes)
    if hash_codes.ndim != 2 or not np.isin(hash_codes, (-1, 1)).all():
        raise ValueError(f"hash codes must be a matrix of -1 and +1, got shape {hash_codes.shape}: binarize first")
    return np.packbits(hash_codes > 0, axis=1, bitorder="little")


def unpack(packed_codes: np.ndarray, *, bits: int) -> np.ndarray:
    """Unpacks bytes into hash codes; the inverse of `pack`.

    Args:
      packed_codes: uint8[n, ceil(bits / 8)].
      bits: the code length, 1 to 256.

    Returns:
      int8[n, bits] in {-1, +1}.

    Raises:
      ValueError: dtype or width do not fit `bits`.

    Source: this project.
    """
    packed_codes = np.asarray(packed_codes)
    if packed_codes.dtype != np.uint8 or packed_codes.ndim != 2 or packed_codes.shape[1] != -(-bits // 8):
        raise ValueError(
            f"packed codes of {bits} bits must be uint8[n, {-(-bits // 8)}], got {packed_codes.dtype}{packed_codes.shape}"
        )
    ones = np.unpackbits(packed_codes, axis=1, count=bits, bitorder="little").astype(np.int8)
    return 2 * ones - np.int8(1)


QUERY_NETS = {"ff": ("f", "f"), "gg": ("g", "g"), "fg": ("f", "g"), "sum": ("sum", "sum")}  # name: query, database
