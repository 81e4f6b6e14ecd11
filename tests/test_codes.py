"""Hash codes: signs, packed bytes and back."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax import codes


# XLA takes subnormal numbers, below 1e-38, for 0
@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(-1, 1, width=32, allow_subnormal=False)))
def test_signs_of_each_number(relaxed_codes):
    """-1 below zero, +1 from zero on, for any shape: by `binarize`, and by `signs` and `sign_bits` of NumPy and JAX."""
    expected = [-1 if x < 0 else 1 for x in relaxed_codes.ravel().tolist()]
    results = {
        np.int8: [codes.binarize(relaxed_codes)],
        np.float32: [codes.signs(relaxed_codes), jax.jit(codes.signs)(relaxed_codes)],
        np.bool: [codes.sign_bits(relaxed_codes), jax.jit(codes.sign_bits)(relaxed_codes)],
    }
    for dtype, arrays in results.items():
        for array in arrays:
            assert array.dtype == dtype
            assert array.shape == relaxed_codes.shape
            assert np.where(np.asarray(array) > 0, 1, -1).ravel().tolist() == expected
            assert dtype == np.bool or set(np.unique(array)) <= {-1, 1}


def test_the_sign_of_zero_is_plus_one():
    """sgn(0) = +1, of -0 too; the gradient of the signs is 0."""
    numbers = np.array([[0.0, -0.0, -1e-30, 1e-30]], np.float32)
    assert codes.binarize(numbers).tolist() == codes.signs(numbers).tolist() == [[1, 1, -1, 1]]
    assert not jax.grad(lambda x: codes.signs(x).sum())(jnp.asarray(numbers)).any()


def test_nan_has_no_sign():
    """A NaN is an error that says what was expected."""
    with pytest.raises(ValueError, match="got NaN"):
        codes.binarize(np.array([[0.5, np.nan]]))


@given(st.data(), st.integers(1, 256), st.integers(0, 3))
def test_pack_is_little_endian_with_zero_padding_and_unpack_its_inverse(data, bits, n):
    """Byte b of a code is the sum of 2^k over its bits 8 b + k that are +1, so padding is zero; unpack returns the code."""
    hash_codes = data.draw(hnp.arrays(np.int8, (n, bits), elements=st.sampled_from([-1, 1])))
    packed = codes.pack(hash_codes)
    assert packed.dtype == np.uint8
    assert packed.shape == (n, -(-bits // 8))
    for code, row in zip(hash_codes, packed, strict=True):
        ones = [k for k in range(bits) if code[k] == 1]
        assert row.tolist() == [sum(2 ** (k % 8) for k in ones if k // 8 == byte) for byte in range(len(row))]
    unpacked = codes.unpack(packed, bits=bits)
    assert unpacked.dtype == np.int8
    np.testing.assert_array_equal(unpacked, hash_codes)


@pytest.mark.parametrize("wrong", [[[0, 1]], [[0.5, -1]], [1, -1], [[[1]]]])
def test_pack_needs_a_matrix_of_signs(wrong):
    """Bits as 0 and 1, relaxed codes, vectors and tensors are errors that say what to do."""
    with pytest.raises(ValueError, match="binarize first"):
        codes.pack(np.array(wrong))


@pytest.mark.parametrize(
    ("packed", "bits"),
    [
        (np.zeros((2, 2), np.int8), 16),
        (np.zeros((2, 2), np.uint8), 17),
        (np.zeros((2, 2), np.uint8), 8),
        (np.zeros(2, np.uint8), 16),
    ],
)
def test_unpack_needs_bytes_that_fit_the_bits(packed, bits):
    """Another dtype, too few or too many bytes, and a vector are errors that say what was expected."""
    with pytest.raises(ValueError, match=rf"packed codes of {bits} bits as uint8\[n, {-(-bits // 8)}\]"):
        codes.unpack(packed, bits=bits)
