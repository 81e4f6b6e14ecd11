"""LabelNet against its layers written out in NumPy."""

import jax
import numpy as np
import pytest

from adsq_jax.models.label_net import LabelNet

LABELS = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]], np.uint8)


@pytest.fixture(scope="module")
def network():
    """A small LabelNet and random variables for it."""
    model = LabelNet(bits=5, hidden=16, features=8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), LABELS))
    random = np.random.default_rng(0)
    return model, jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)


def test_outputs_are_those_of_three_layers_and_a_head(network):
    """The outputs equal those of the same layers in NumPy; features are taken before their relu."""
    model, variables = network
    params = jax.tree.map(np.asarray, variables["params"])

    def dense(x, name):
        return x @ params[name]["kernel"] + params[name]["bias"]

    expected_semantic = dense(np.maximum(dense(LABELS.astype(np.float32), "hidden_layer"), 0), "semantic")
    expected_codes = np.tanh(dense(np.maximum(expected_semantic, 0), "hash"))
    semantic, relaxed_codes, label_logits = model.apply(variables, LABELS)
    np.testing.assert_allclose(semantic, expected_semantic, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(relaxed_codes, expected_codes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(label_logits, dense(expected_codes, "labels"), rtol=1e-4, atol=1e-5)
    assert (expected_semantic < 0).any()  # or a relu on the features would not show


def test_shapes_dtypes_and_range(network):
    """Outputs are float32 [m, features], [m, bits] in [-1, 1] and [m, c]."""
    model, variables = network
    outputs = model.apply(variables, LABELS)
    assert [x.shape for x in outputs] == [(4, 8), (4, 5), (4, 3)]
    assert all(x.dtype == np.float32 for x in outputs)
    assert (np.abs(outputs[1]) <= 1).all()


def test_published_layer_sizes_have_their_number_of_parameters():
    """81 labels, 4096 and 512 units, 48 bits, and 81 logits give the number of weights and biases."""
    model = LabelNet(bits=48, hidden=4096, features=512)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((2, 81), np.uint8))
    expected = 82 * 4096 + 4097 * 512 + 513 * 48 + 49 * 81
    assert sum(x.size for x in jax.tree.leaves(shapes)) == expected
