# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Score codes that were made elsewhere
#
# You have hash codes from some other program and want to know how well they retrieve. This notebook makes three kinds of
# codes with NumPy and scikit-learn alone, measures them, and shows how much of a published mAP can be due to the order in
# which a sort happens to leave equal distances.
#
# Needs `pip install 'adsq_jax[examples]'`. Downloads nothing and takes about 15 seconds on two cores.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import adsq_jax as aj

digits = load_digits()
features, labels = digits.data - digits.data.mean(axis=0), digits.target  # [1797, 64], [1797]
queries, database = np.arange(200), np.arange(200, 1797)

# %% [markdown]
# ## Three kinds of codes
#
# - **Random hyperplanes**: the side of a random plane on which a point lies.
# - **Sign of PCA**: the sign of each principal component.
# - **ITQ** (Gong and Lazebnik 2011): PCA, and then a rotation that brings the components close to their signs.
#
# They are real numbers here; the evaluator takes the sign. It also takes -1 and +1, 0 and 1, or packed bits.


# %%
def random_hyperplanes(bits, random):
    return features @ random.normal(size=(features.shape[1], bits))


def sign_of_pca(bits, random):
    return PCA(bits).fit(features[database]).transform(features)


def itq(bits, random, steps=50):
    projected = sign_of_pca(bits, random)
    rotation = np.linalg.qr(random.normal(size=(bits, bits)))[0]
    for _ in range(steps):
        left, _, right = np.linalg.svd(np.sign(projected[database] @ rotation).T @ projected[database])
        rotation = (left @ right).T
    return projected @ rotation


makers = {"random hyperplanes": random_hyperplanes, "sign of PCA": sign_of_pca, "ITQ": itq}


def score(codes):
    split = {"query_labels": labels[queries], "database_labels": labels[database]}
    return aj.retrieval.measure(codes[queries], codes[database], **split, cutoffs=["all", 100], with_legacy=True)


codes = {name: make(16, np.random.default_rng(0)) for name, make in makers.items()}
measures = {name: score(values) for name, values in codes.items()}
measures["ITQ"]

# %% [markdown]
# ## Ties, and why one number isn't enough
#
# Codes of 16 bits have 17 possible distances, so most of the 1,597 items are tied with others. `map` averages over all
# orders of tied items. `map_best` and `map_worst` are the largest and the smallest that an order can give.
# `map_legacy_deephash` is what a stable sort gives, as much published code uses: one order among many.
#
# The table above has another difference: at a cutoff of 100, published code divides by the relevant items that it found,
# not by those that it could have found, and "mAP as DeepHash-pytorch" is far larger than mAP.

# %%
print(f"{'16 bits, mAP@all':20} {'worst':>7} {'mean':>7} {'best':>7} {'stable sort':>12}")
for name, measured in measures.items():
    at = measured.at("all")
    print(f"{name:20} {at.map_worst:7.3f} {at.map:7.3f} {at.map_best:7.3f} {at.map_legacy_deephash:12.3f}")

# %% [markdown]
# ## The same codes in another order
#
# Now put the database into 100 random orders, and compute mAP as published code does, by a stable sort. The codes are the
# same each time. The shorter they are, the more the result moves, and the tie-averaged value is the mean of what you see.
# Data sets are often stored class by class; at 4 bits, that order alone adds more than any of the random ones.


# %%
def map_by_stable_sort(codes, order):
    signs = np.where(codes >= 0, 1, -1)
    distances = -signs[queries] @ signs[order].T
    ranked = labels[order][np.argsort(distances, axis=1, kind="stable")]
    relevant = ranked == labels[queries][:, None]
    precision = relevant.cumsum(axis=1) / np.arange(1, len(order) + 1)
    return np.mean((precision * relevant).sum(axis=1) / relevant.sum(axis=1))


random = np.random.default_rng(1)
by_class = database[np.argsort(labels[database], kind="stable")]
fig, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
for axis, bits in zip(axes, (4, 8, 16), strict=True):
    short = sign_of_pca(bits, random)
    axis.hist([map_by_stable_sort(short, random.permutation(database)) for _ in range(100)], bins=12, label="random orders")
    axis.axvline(map_by_stable_sort(short, by_class), color="C3", label="stored class by class")
    axis.axvline(score(short).map, color="black", linestyle="--", label="averaged over ties")
    axis.set(xlabel="mAP@all by a stable sort", ylabel="number of orders", title=f"sign of PCA, {bits} bits")
axes[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# ## More bits, fewer ties
#
# The band reaches from the worst to the best order. It gets narrower with the code length, but does not vanish.

# %%
lengths = (8, 12, 16, 24, 32, 48)
fig, axis = plt.subplots(figsize=(8, 4))
for place, (name, make) in enumerate(makers.items()):
    found = [score(make(bits, np.random.default_rng(0))).at("all") for bits in lengths]
    axis.plot(lengths, [at.map for at in found], marker="o", color=f"C{place}", label=name)
    axis.fill_between(lengths, [at.map_worst for at in found], [at.map_best for at in found], color=f"C{place}", alpha=0.15)
axis.set(xlabel="code length [bits]", ylabel="mAP@all", title="mAP averaged over ties; band: worst to best order")
axis.set(xticks=lengths, ylim=(0, 0.8))
axis.legend(loc="upper center", ncols=3)
plt.show()

# %% [markdown]
# ## Precision and recall by radius
#
# Each point is a Hamming radius: all items within so many bits of the query are returned. Radius 0 is at the left end;
# there, many balls are empty, which counts as precision 0.

# %%
fig, axis = plt.subplots(figsize=(8, 4))
for name, measured in measures.items():
    curve = measured.precision_recall
    axis.plot(curve.recall, curve.precision, marker=".", label=name)
axis.set(xlabel="recall", ylabel="precision", title="16 bits, one point for each radius", xlim=(0, 1.02), ylim=(0, 1.02))
axis.legend()
plt.show()

# %% [markdown]
# From the command line the same is `adsq evaluate --query_codes=Q.npy --database_codes=D.npy --query_labels=QL.npy
# --database_labels=DL.npy --legacy`, which also reads files of MATLAB, HDF5 and text.
