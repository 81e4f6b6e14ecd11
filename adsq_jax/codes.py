"""Hash codes: the sign of relaxed codes, and packing into bytes.

Hash codes are int8[n, bits] in {-1, +1}. Packed codes are uint8[n, ceil(bits / 8)] in little bit order: 1 is +1, and the last
byte is padded with zeros. This module needs only NumPy; `sign_bits` and `signs` also take JAX arrays, under `jax.jit` too.
"""

from typing import Any

import numpy as np

MAX_BITS = 256  # of codes that are learned, and stored in an index
MAX_MEASURED_BITS = 1_024  # of codes from anywhere that `retrieval` measures and searches
BIT_ORDER = "little; 1 is +1; padding is 0"  # of packed codes, for manifests
QUERY_NETS = {"ff": ("f", "f"), "gg": ("g", "g"), "fg": ("f", "g"), "sum": ("sum", "sum")}  # name: query, database


def sign_bits(relaxed_codes: Any) -> Any:
    """Return where the hash code is +1. This comparison alone decides that sgn(0) = +1.

    Args:
      relaxed_codes: number[...], of NumPy or JAX.

    Returns:
      bool[...], of the same library.

    Source: this project.
    """
    return relaxed_codes >= 0


def signs(relaxed_codes: Any) -> Any:
    """Return the signs in the dtype of the relaxed codes, with sgn(0) = +1; their gradient is 0.

    Args:
      relaxed_codes: float[...], of NumPy or JAX.

    Returns:
      float[...] in {-1, +1}, of the same library and dtype.

    Source: this project.
    """
    return 2 * sign_bits(relaxed_codes).astype(relaxed_codes.dtype) - 1


def binarize(relaxed_codes: np.ndarray) -> np.ndarray:
    """Turn relaxed codes into hash codes, with sgn(0) = +1.

    Args:
      relaxed_codes: float[..., bits].

    Returns:
      int8[..., bits] in {-1, +1}.

    Raises:
      ValueError: a relaxed code is NaN.

    Source: this project.
    """
    relaxed_codes = np.asarray(relaxed_codes)
    if np.isnan(relaxed_codes).any():
        raise ValueError("expected relaxed codes that are numbers, got NaN; fix: look for NaN in the network or its input")
    return np.where(sign_bits(relaxed_codes), 1, -1).astype(np.int8)


def pack(hash_codes: np.ndarray) -> np.ndarray:
    """Pack hash codes into bytes.

    Args:
      hash_codes: int[n, bits] in {-1, +1}.

    Returns:
      uint8[n, ceil(bits / 8)], little bit order, 1 = +1, padded with zeros.

    Raises:
      ValueError: the codes are not a matrix of -1 and +1.

    Source: this project.
    """
    hash_codes = np.asarray(hash_codes)
    if hash_codes.ndim != 2 or not np.isin(hash_codes, (-1, 1)).all():
        raise ValueError(
            f"expected hash codes [n, bits] of -1 and +1, got {hash_codes.dtype}{list(hash_codes.shape)}; fix: binarize first"
        )
    return np.packbits(hash_codes > 0, axis=1, bitorder="little")


def unpack(packed_codes: np.ndarray, *, bits: int) -> np.ndarray:
    """Unpack bytes into hash codes; the inverse of `pack`.

    Args:
      packed_codes: uint8[n, ceil(bits / 8)].
      bits: the code length, at least 1.

    Returns:
      int8[n, bits] in {-1, +1}.

    Raises:
      ValueError: dtype or width doesn't fit `bits`.

    Source: this project.
    """
    packed_codes = np.asarray(packed_codes)
    width = -(-bits // 8)
    if packed_codes.dtype != np.uint8 or packed_codes.ndim != 2 or packed_codes.shape[1] != width:
        got = f"{packed_codes.dtype}{list(packed_codes.shape)}"
        raise ValueError(
            f"expected packed codes of {bits} bits as uint8[n, {width}], got {got}; fix: pack them, or give their bits"
        )
    ones = np.unpackbits(packed_codes, axis=1, count=bits, bitorder="little").astype(np.int8)
    return 2 * ones - np.int8(1)
