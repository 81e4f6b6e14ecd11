"""PSLDH: Tu, Mao, Guo, Wei and Huang, Partial-Softmax Loss based Deep Hashing, WWW 2021.

A network of labels, c -> 512 -> K with ReLU and tanh, learns a relaxed code h_c for each class: the mean over pairs of classes
of [h_c . h_c' - K (c = c')]+^2, plus alpha |sum_c h_c|^2 / c, plus beta sum_c |sgn(h_c) - h_c|^2 / c. Then p_c = sgn(h_c) are
fixed. For each label c of an image, the partial softmax compares e^(gamma (u . p_c - sigma K)) with e^(gamma u . p_c') of the
classes c' that the image does not have; the loss is the mean over the image's labels, plus lambda |sgn(u) - u|^2.

The formulas are those of the authors' code (github.com/rongchengtu1/PSLDH), since the paper wasn't at hand.
Deviations:
- The authors' code adds 1 to the denominator for each label of the image, since e^0 stands for what is left out; not here.
- An image without labels has no partial softmax; theirs divides by 0.
- When the class codes are learned is this project's arrangement: not in a training phase, but where the loss first asks for
  them, by NumPy in float64, so that a run that continues on another device has the same. Adam takes the place of SGD, by whose
  200 updates at a learning rate of 0.001 the codes hardly differ from their random beginning.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import codes
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, quantization_loss

SETTINGS = {"scale": 0.2, "margin": 0.2, "quantization": 0.01}  # gamma; sigma; lambda, the weight of a sum over bits
TUNING_GRID = ({"scale": 0.2}, {"scale": 0.5})
ALPHA, BETA = 0.05, 0.01  # weights of balance and quantization of the class codes
HIDDEN, STEPS, LEARNING_RATE = 512, 300, 3e-3


def class_gradient(h: np.ndarray) -> np.ndarray:
    """Return the gradient of the class codes' loss by h, float64[c, bits]."""
    classes, bits = h.shape
    excess = np.maximum(h @ h.T - bits * np.eye(classes), 0.0)  # [c, c]
    pairs = 4 * excess @ h / classes**2
    return pairs + 2 * (ALPHA * h.sum(axis=0, keepdims=True) + BETA * (h - codes.signs(h))) / classes


@cache
def class_codes(classes: int, bits: int, *, seed: int) -> np.ndarray:
    """Learn a hash code for each class; the same arguments give the same ones.

    It takes a few seconds for a hundred classes. With many classes and few bits, some of them may get the same code.

    Args:
      classes: c.
      bits: the code length.
      seed: seed for the network's initial weights.

    Returns:
      float32[c, bits] in {-1, +1}.

    Source: the authors' code; when and by which optimiser: this project.
    """
    random = np.random.default_rng([seed, classes, bits])
    fans = (classes, classes, HIDDEN, HIDDEN)
    shapes = ((classes, HIDDEN), (1, HIDDEN), (HIDDEN, bits), (1, bits))
    weights = [random.uniform(-1, 1, shape) / np.sqrt(fan) for fan, shape in zip(fans, shapes, strict=True)]  # as PyTorch does
    means, squares = ([np.zeros(shape) for shape in shapes] for _ in range(2))

    def forward() -> tuple[np.ndarray, np.ndarray]:
        hidden = np.maximum(weights[0] + weights[1], 0.0)  # of one-hot labels, [c, HIDDEN]
        return hidden, np.tanh(hidden @ weights[2] + weights[3])

    for step in range(1, STEPS + 1):
        hidden, h = forward()
        by_output = class_gradient(h) * (1 - h**2)  # [c, bits]
        by_hidden = by_output @ weights[2].T * (hidden > 0)  # [c, HIDDEN]
        gradients = (by_hidden, by_hidden.sum(axis=0), hidden.T @ by_output, by_output.sum(axis=0))
        for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):  # Adam
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            weight -= LEARNING_RATE * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return codes.signs(forward()[1]).astype(np.float32)


def loss(inputs: LossInputs, *, scale: float = 0.2, margin: float = 0.2, quantization: float = 0.01) -> Terms:
    """Return the partial softmax and the quantization, means over the batch."""
    u, labels = inputs.relaxed_codes, inputs.labels
    bits = u.shape[1]
    logits = scale * u @ class_codes(labels.shape[1], bits, seed=inputs.seed).T  # [batch, c]
    others = jax.nn.logsumexp(jnp.where(labels > 0, -1e30, logits), axis=1, keepdims=True)  # [batch, 1]; finite without others
    partial_softmax = jax.nn.softplus(others - (logits - scale * margin * bits))  # [batch, c]
    share = labels / jnp.maximum(labels.sum(axis=1, keepdims=True), 1.0)
    return {
        "partial_softmax": jnp.mean(jnp.sum(share * partial_softmax, axis=1)),
        "quantization": quantization * bits * quantization_loss(u - codes.signs(u)),
    }


def method(*, scale: float, margin: float, quantization: float) -> Method:
    """Return PSLDH."""
    return Method(loss=partial(loss, scale=scale, margin=margin, quantization=quantization))
