# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Train in Python
#
# Learn hash codes of scikit-learn's handwritten digits: first in one call, then by hand, where each piece is a pure
# function that you can replace.
#
# Needs `pip install 'adsq_jax[examples]'`. Downloads nothing and takes about a minute on two cores.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import adsq_jax as aj

digits = load_digits()
images = (digits.images * 15.9).astype(np.uint8)  # [1797, 8, 8]
labels = digits.target  # [1797]
queries, rest = np.arange(100), np.arange(100, 1797)
_, axes = plt.subplots(1, 10, figsize=(10, 1.4))
for axis, image, label in zip(axes, images, labels, strict=False):
    axis.imshow(image, cmap="gray_r")
    axis.set_title(str(label))
    axis.axis("off")
plt.show()

# %% [markdown]
# ## In one call
#
# `fit` takes NumPy arrays, or a list of paths or PIL images. Without `on_progress` it shows a progress bar; here we keep
# what it reports. `evaluate` searches the images that `fit` was given.

# %%
records = []
run = aj.fit(images[rest], labels[rest], bits=48, rounds=3, on_progress=records.append)
measures = run.evaluate(images[queries], labels[queries], cutoffs=["all", 100])
print(f"trained in {run.seconds:.0f} s, mAP@all {measures.map:.3f}, mAP@100 {measures.at(100).map:.3f}")
measures

# %% [markdown]
# The loss is a sum of terms, and each record has them all.

# %%
steps = [record for record in records if record["phase"] == "img_net" and record["net"] == "f"]
_, axis = plt.subplots(figsize=(8, 3.5))
for name in ("loss", "likelihood", "guidance", "difference", "quantization"):
    axis.plot([record["step"] for record in steps], [record[name] for record in steps], marker=".", label=name)
axis.set(xlabel="update", ylabel="value of the term", title="Network f")
axis.legend()
plt.show()

# %% [markdown]
# ## By hand
#
# What a run fixes is a setup, what changes is a state, and everything else is a function of the two.

# %%
data = aj.data.from_arrays(images, labels, query=queries, train=rest[:1000], database=rest)
method = aj.methods.adsq(weights={"balance": 0.0})  # or aj.methods.dpsh(), or your own
setup = aj.training.setup(data, method, aj.models.build("small_cnn", bits=48), rounds=3, epochs_per_round=1)
state = aj.training.init(setup, seed=0)
state = aj.training.train_label_net(setup, state)
losses = {net: [] for net in setup.networks}
for number in range(setup.rounds):
    for net in setup.networks:
        fixed = aj.training.targets(setup, state, net=net)
        for batch in aj.data.batches(data, batch_size=128, seed=0, epoch=number):
            state, metrics = aj.training.step(setup, state, batch, net=net, fixed=fixed)
            losses[net].append(float(metrics["loss"]))
        state = aj.training.refresh_bank(setup, state, net=net)
    state = aj.training.update_codes(setup, state, refresh=False)
codes = aj.inference.encode(setup, state, images)  # int8[1797, 48] in {-1, +1}
by_hand = aj.retrieval.measure(codes[queries], codes[rest], query_labels=labels[queries], database_labels=labels[rest])
print(f"mAP@all {by_hand.map:.3f}")

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for net, values in losses.items():
    left.plot(values, label=f"network {net}")
left.set(xlabel="update of the network", ylabel="loss", title="Training by hand")
left.legend()
for name, measured in (("in one call", measures), ("by hand, fewer images", by_hand)):
    right.plot(list(measured.precision_at), list(measured.precision_at.values()), marker=".", label=name)
right.set(xscale="log", xlabel="N", ylabel="precision of the first N", ylim=(0, 1.02), title="Retrieval")
right.legend()
plt.show()

# %% [markdown]
# ## A loss by itself
#
# Each method's loss is a function of arrays: differentiate it, compile it, or map it over seeds.

# %%
relaxed_codes = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)


def loss(relaxed_codes):
    """Return the sum of DPSH's terms for one batch."""
    return sum(aj.methods.dpsh.loss(aj.methods.loss_inputs(relaxed_codes, labels[:32]), eta=0.1).values())


print("loss", float(jax.jit(loss)(relaxed_codes)), "gradient", jax.grad(loss)(relaxed_codes).shape)

# %% [markdown]
# ## The nearest images
#
# `search` returns distances in bits, and rows of the database.

# %%
distances, nearest = aj.retrieval.search(codes[queries[:3]], codes[rest], 8)
_, axes = plt.subplots(3, 9, figsize=(9, 3.8))
for row, query, found, bits in zip(axes, queries, nearest, distances, strict=False):
    for axis, place in zip(row, [query, *rest[found]], strict=True):
        axis.imshow(images[place], cmap="gray_r")
        axis.axis("off")
    row[0].set_title("query", fontsize=9)
    for axis, distance in zip(row[1:], bits, strict=True):
        axis.set_title(f"{distance} bits", fontsize=9)
plt.show()
