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
# Learn hash codes of scikit-learn's handwritten digits: first in one call, then by hand, where each piece is a pure function
# that you can replace. Needs `pip install -e '.[digits,report]'` and takes about a minute on two cores.
#
# `python examples/train_in_python.py [FOLDER]` runs it as a script and writes its plots to FOLDER; in Jupyter, open it as a
# notebook with jupytext.

# %%
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import adsq_jax as aj

plots = Path(sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ".")
digits = load_digits()
images = (digits.images * 15.9).astype(np.uint8)  # [1797, 8, 8]
labels = digits.target  # [1797]
queries, rest = np.arange(100), np.arange(100, 1797)
fig, axes = plt.subplots(1, 10, figsize=(10, 1.4))
for axis, image, label in zip(axes, images, labels, strict=False):
    axis.imshow(image, cmap="gray_r")
    axis.set_title(str(label))
    axis.axis("off")
fig.savefig(plots / "digits.png", bbox_inches="tight")

# %% [markdown]
# ## In one call
#
# `fit` takes NumPy arrays, or a list of paths or PIL images. `evaluate` looks for the images that it was given.

# %%
run = aj.fit(images[rest], labels[rest], bits=48, rounds=3)
measures = run.evaluate(images[queries], labels[queries], cutoffs=["all", 100])
print(run)
print(measures)
print("mAP@100", measures.at(100).map)

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
print(by_hand)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5))
for net, values in losses.items():
    left.plot(values, label=f"network {net}")
left.set(xlabel="update of the network", ylabel="loss", title="Training by hand")
left.legend()
right.plot(list(by_hand.precision_at), list(by_hand.precision_at.values()), marker=".")
right.set(xscale="log", xlabel="N", ylabel="precision of the first N", ylim=(0, 1.02), title="Retrieval")
fig.savefig(plots / "training.png", bbox_inches="tight")

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
print("nearest of the first query:", aj.retrieval.search(codes[:1], codes[rest], 5))
