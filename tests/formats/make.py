"""Write one small file of each format as this version writes it: `python tests/formats/make.py`, in the repository's root.

`tests/test_formats.py` opens them with every later version. When a format changes:

1. Raise its number where it is written: `inference/model_files.py` (models), `index/engine.py` (indexes; their checksums and
   folders have numbers of their own, in `index/checksums.py` and `index/roots.py`), or `RUN` below, since a run's files have
   no number.
2. Run this script: it writes what isn't there yet, NAME_NUMBER and NAME_NUMBER.json with what must come out, and leaves the
   older ones as they are. Commit both.
3. See that `tests/test_formats.py` passes: it takes all that are here. What can't be opened any more is an incompatible change:
   say so in CHANGELOG, and replace the old files' case by one that expects the message.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import adsq_jax
from adsq_jax import index, models
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.index import engine, roots
from adsq_jax.inference import model_files
from adsq_jax.inference.model import Model
from adsq_jax.search import search

FORMATS = Path(__file__).parent
PICTURES = FORMATS / "pictures"
RUN = 1  # of a run's folder
SMALL = (
    *("model.width=1", "model.features=4", "label_net.hidden=4", "label_net.steps=20", "data.image_size=8"),
    *("train.rounds=1", "train.epochs_per_round=1", "train.batch_size=64", "train.log_every=5"),
)
FLAGS = ["--config=configs/digits.py:bits=12", *(f"--config.{setting}" for setting in SMALL)]
_MARGIN = 1e-2  # between relaxed codes of different signs, so that no other order of sums changes a bit


def pictures():
    """Return the pictures' paths; draw them if they aren't there."""
    random = np.random.default_rng(0)
    for label, colour in {"blue": (0, 10, 90), "red": (90, 10, 0)}.items():
        for number in range(4):
            path = PICTURES / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.kron(random.integers(0, 160, (3, 4, 3)) + np.array(colour), np.ones((6, 6, 1)))
            if not path.exists():
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return sorted(PICTURES.rglob("*.png"))


def make_model(folder):
    """Save a ResNet of random weights and statistics; return the codes of the pictures."""
    network = models.build("resnet18", bits=12, width=2, features=8)
    shapes = jax.eval_shape(lambda: network.img_net.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.uint8), train=False))
    random = np.random.default_rng(0)

    def draw(path, x):
        if path[-1].key in ("scale", "var"):
            return random.uniform(0.5, 1.5, x.shape).astype(np.float32)
        return (random.normal(size=x.shape) * np.sqrt(2 * x.shape[-1] / x.size)).astype(np.float32)

    variables = {"f": jax.tree.map_with_path(draw, shapes)}
    model = Model.from_networks(
        variables,
        network={**network.arguments, "features": 8, "mean": (0.4, 0.5, 0.6), "deviation": (0.2, 0.2, 0.3), "head": "linear"},
        bits=12,
        dtype="float32",
        preprocessing=Preprocessing(resize=18, image_size=16),
        query_net="ff",
        batch_size=16,
        method="adsq",
    )
    pixels = np.stack([model.preprocess(path, number) for number, path in enumerate(pictures())])
    [relaxed] = model.relaxed_codes(model.variables, pixels, part="query")
    ordered, half = np.sort(relaxed, axis=0), len(pixels) // 2
    assert (ordered[half] - ordered[half - 1]).min() > _MARGIN
    model.variables["f"]["params"]["hash"]["bias"] -= (
        ordered[half] + ordered[half - 1]
    ) / 2  # half of the pictures have each bit
    model.save(folder)
    return {"codes": [code.tobytes().hex() for code in model.encode(pictures(), packed=True)]}


def make_run(folder):
    """Train on the digits; return the flags, and mAP."""
    command = [sys.executable, "-m", "adsq_jax.main", f"--workdir={folder}", *FLAGS]
    subprocess.run(command, cwd=FORMATS.parents[1], check=True, capture_output=True)
    for name in ("tensorboard", "checkpoints"):  # TensorBoard's and orbax's formats, and large
        shutil.rmtree(folder / name)
    return {"flags": FLAGS, "map": f"{json.loads((folder / 'result.json').read_text())['map']:.4f}"}


def make_index(folder):
    """Fill an index that keeps its model and features with the pictures; return the hits of each."""
    model = adsq_jax.load(FORMATS / f"model_{model_files.FORMAT}")
    codes, features = model.encode_with_features(pictures(), part="database")
    manifest = index.Manifest(model.bits, model.sha256, features=features.shape[1])
    items = [index.Item(f"/pictures/{path.parent.name}/{path.name}", (path.parent.name,), "0" * 64) for path in pictures()]
    with index.create(str(folder), manifest, model=model.files) as opened:
        opened.add(items[:5], codes[:5], features[:5])
        opened.add(items[5:], codes[5:], features[5:])
        opened.delete([items[0].id])
        roots.record(opened, "/pictures/")
        results = search(opened, pictures(), k=3)
    return {"manifest": manifest.to_dict(), "hits": [[hit._asdict() for hit in found] for found in results]}


FORMATS_NOW = {"model": (model_files.FORMAT, make_model), "run": (RUN, make_run), "index": (engine.FORMAT, make_index)}


def main():
    """Write the formats that aren't there."""
    for name, (number, make) in FORMATS_NOW.items():
        folder = FORMATS / f"{name}_{number}"
        if not folder.exists():
            expected = make(folder)
            folder.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n")
            print(folder)


if __name__ == "__main__":
    main()
