"""Measure how fast pictures are encoded into an index, from files to disk, beside the network alone on pixels in memory.

    python -m benchmarks.speed.encode --workdir=RUN --images=FOLDER [--turns=5]

Both take turns on the same images; the first turn of each compiles, and isn't counted. Writes
benchmarks/results/index/encode.json.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data import gallery
from adsq_jax.devices import host
from adsq_jax.encode import encode_images
from adsq_jax.inference import loading
from adsq_jax.run import environment


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the folder of a run")
    parser.add_argument("--images", required=True, help="a folder of pictures")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=storage.path, default=Path("benchmarks/results/index/encode.json"))
    given = parser.parse_args()
    host.use_all_cores()
    loaded = loading.load(given.workdir)
    images = gallery.read(given.images, directory="")
    pixels = np.stack([loaded.preprocess(images.id(row), row) for row in range(len(images))])
    seconds: dict[str, list[float]] = {"encode": [], "network": []}
    for _ in range(given.turns + 1):
        began = time.perf_counter()
        starts = range(0, len(pixels), loaded.batch_size)
        list(loaded.stream((pixels[start : start + loaded.batch_size] for start in starts), part="database"))
        seconds["network"].append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            counts = encode_images(loaded, given.images, index=f"{folder}/index", on_progress=lambda done: None)
            seconds["encode"].append(time.perf_counter() - began)
            assert counts.encoded == len(images)
    speeds = {name: len(images) / statistics.median(several[1:]) for name, several in seconds.items()}
    result = {
        **environment.environment(),
        "machine": f"{platform.machine()}, {host.cores()} cores",
        "backbone": loaded.description["network"]["backbone"],
        "image_size": loaded.image_size,
        "images": len(images),
        "images_a_second": speeds,
        "ratio": speeds["encode"] / speeds["network"],
    }
    print(json.dumps(result, indent=1))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
