# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Change the loss
#
# ADSQ's loss is a weighted sum of terms. This notebook changes one weight at a time, looks at what happens to the codes,
# and then adds a term of its own. The networks are tiny and train for seconds, with one seed: look at the shapes of the
# plots, not at the third digit of mAP.
#
# Needs `pip install 'adsq_jax[examples]'`. Downloads nothing and takes about a minute on two cores.

# %%
from functools import partial

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import adsq_jax as aj

digits = load_digits()
images, labels = (digits.images * 15.9).astype(np.uint8), digits.target  # [1797, 8, 8], [1797]
queries, rest = np.arange(200), np.arange(200, 1797)
data = aj.data.from_arrays(images, labels, query=queries, train=rest[:600], database=rest)
network = aj.models.build("small_cnn", bits=16, width=8, features=64)
pixels = np.repeat(images[..., None], 3, axis=-1)  # [1797, 8, 8, 3]: networks take colour


def train(method):
    """Train two rounds; return relaxed codes in (-1, 1) by network f, hash codes, and mAP."""
    setup = aj.training.setup(data, method, network, rounds=2, epochs_per_round=4, batch_size=100)
    state = aj.training.init(setup, seed=0)
    if method.label_net:
        state = aj.training.train_label_net(setup, state)
    for number in range(setup.rounds):
        state, _ = aj.training.train_round(setup, state, number=number)
    model = setup.model(state, query_net="ff")
    relaxed = np.asarray(model.relaxed_codes(model.variables, pixels, part="database")[0])
    codes = np.where(relaxed >= 0, 1, -1)
    split = {"query_labels": labels[queries], "database_labels": labels[rest]}
    return relaxed, codes, aj.retrieval.measure(codes[queries], codes[rest], **split).map


# %% [markdown]
# ## One weight at a time
#
# The defaults are `balance` 0.1, `quantization` 0.1 and `difference` 1. Each is switched off and then made much larger.

# %%
weights = {
    "defaults": {},
    "balance 0": {"balance": 0.0},
    "balance 5": {"balance": 5.0},
    "quantization 0": {"quantization": 0.0},
    "quantization 2": {"quantization": 2.0},
    "difference 0": {"difference": 0.0},
    "difference 5": {"difference": 5.0},
}
trained = {name: train(aj.methods.adsq(weights=changed)) for name, changed in weights.items()}
for name, (_, _, value) in trained.items():
    print(f"{name:15} mAP@all {value:.3f}")

# %% [markdown]
# ## Balance: each bit is +1 for half of the images
#
# A bit that is the same for nearly all images says little. The term pulls each bit's mean to 0.

# %%
fig, axes = plt.subplots(1, 3, figsize=(12, 3), sharey=True, layout="constrained")
for axis, name in zip(axes, ("balance 0", "defaults", "balance 5"), strict=True):
    axis.bar(np.arange(16), np.sort((trained[name][1][rest] > 0).mean(axis=0)))
    axis.axhline(0.5, color="black", linestyle="--", linewidth=1)
    axis.set(xlabel="bits, sorted", title=name, ylim=(0, 1), xticks=range(0, 16, 5))
axes[0].set_ylabel("share of images with +1")
plt.show()

# %% [markdown]
# ## Quantization: relaxed codes go to -1 and +1
#
# The network's outputs are real numbers, and the hash code is their sign. What is near 0 loses most by taking the sign.

# %%
fig, axes = plt.subplots(1, 3, figsize=(12, 3), sharey=True, layout="constrained")
for axis, name in zip(axes, ("quantization 0", "defaults", "quantization 2"), strict=True):
    axis.hist(trained[name][0][rest].ravel(), bins=40, range=(-1, 1), density=True)
    axis.set(xlabel="relaxed code", title=name)
axes[0].set_ylabel("density")
plt.show()

# %% [markdown]
# ## Difference: similar pairs near 0 bits, others far apart
#
# The term compares the product of two codes with what it should be. Without it, nothing asks that dissimilar pairs be at
# one distance, only that they be farther apart than similar ones.

# %%
similar = labels[queries][:, None] == labels[rest]
fig, axes = plt.subplots(1, 3, figsize=(12, 3), sharey=True, layout="constrained")
for axis, name in zip(axes, ("difference 0", "defaults", "difference 5"), strict=True):
    codes = trained[name][1]
    distances = (16 - codes[queries] @ codes[rest].T) // 2
    for text, chosen in (("same digit", similar), ("another digit", ~similar)):
        axis.hist(distances[chosen], bins=np.arange(18) - 0.5, density=True, alpha=0.6, label=text)
    axis.set(xlabel="Hamming distance [bits]", title=name, xticks=range(0, 17, 4))
axes[0].set_ylabel("share of pairs")
axes[0].legend()
plt.show()

# %% [markdown]
# ## A loss of your own
#
# A method is a pure function from what a batch holds to named terms, which are added up. This one takes the likelihood of
# the batch's pairs (as DPSH), and penalises bits that say the same: their correlation within the batch.


# %%
def loss(inputs, *, weight):
    u = inputs.relaxed_codes  # [batch, bits]
    similar = aj.methods.objective.similarity(inputs.labels, inputs.labels)  # [batch, batch]
    pairs = aj.methods.objective.likelihood_loss(u @ u.T / 2, similar, weights=jnp.float32(1 / similar.size))
    centred = u - u.mean(axis=0)
    covariance = centred.T @ centred / len(u)  # [bits, bits]
    off_diagonal = covariance - jnp.diag(jnp.diag(covariance))
    return {"likelihood": pairs, "decorrelation": weight * jnp.mean(off_diagonal**2)}


def mean_correlation(codes):
    return np.abs(np.corrcoef(codes[rest].T)[np.triu_indices(16, k=1)]).mean()


for weight in (0.0, 20.0, 100.0):
    _, codes, value = train(aj.methods.Method(loss=partial(loss, weight=weight)))
    print(f"decorrelation {weight}: mean correlation of two bits {mean_correlation(codes):.3f}, mAP@all {value:.3f}")

# %% [markdown]
# The bits say the same less often, and there is a price: what is best for one term need not be best for mAP. Tune a weight
# on held-out training images, never on the queries.
#
# Such a function in a module of your own trains from the command line, too: `adsq train
# --config=digits:method=mypackage.mymodule`.
