"""Measure the input's speed beside tf.data and torch's DataLoader: 256x256 JPEG files to augmented batches of 224x224.

    pip install -e . tensorflow-cpu torch torchvision
    python -m benchmarks.speed.input                      (writes benchmarks/results/input/input.json)

Every reader does the same work on the same cores: reads files in a shuffled order, decodes them whole, cuts out 224x224 at
random, mirrors half of them, makes batches of 64 in uint8. They take turns; ratios are taken within a turn.
tf.data is timed twice, the second time with its fused operation that decodes only what the crop needs. This package is also
timed with one thread, and with worker processes of one thread each.
"""

import argparse
import functools
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from absl import flags
from PIL import Image

from adsq_jax import storage
from adsq_jax.data import pipeline
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers.lists import parse
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.devices.host import cores, reading_threads
from adsq_jax.run import environment

ROOT = Path(__file__).parents[2]
IMAGES, SIDE, CROP, BATCH, TURNS, WARM, BATCHES = 1_024, 256, 224, 64, 7, 8, 64
WORKERS = 0, 1, 2  # processes
LINES = 1_000_000


def pictures(folder: Path) -> list[str]:
    """Write JPEG files of smooth noise, about 20 KB each; return their names."""
    random = np.random.default_rng(0)
    names = [f"{k:05d}.jpg" for k in range(IMAGES)]
    for name in names:
        small = Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    return names


def ours(folder: Path, names: list[str], *, threads: int = 0, workers: int = 0) -> Iterator[np.ndarray]:
    """Read with this package: by `threads` in each process, 0: one a core; and by worker processes, if there are any."""
    source = FileSource(
        folder, Labels.from_ids(np.zeros(len(names), int), classes=1), classes=["none"], names=Names(map(str.encode, names))
    )
    batches = pipeline.train_batches(
        source,
        np.arange(len(names)),
        preprocessing=pipeline.Preprocessing(resize=SIDE, image_size=CROP, flip=True),
        batch_size=BATCH,
        seed=0,
        start=0,
        read_options=pipeline.ReadOptions(threads=reading_threads(threads), workers=workers),
    )
    return (batch["inputs"] for batch in batches)


def tf_data(folder: Path, names: list[str], *, fused: bool) -> Iterator[np.ndarray]:
    """Read with tf.data."""
    import tensorflow as tf

    def load(path: "tf.Tensor") -> "tf.Tensor":
        content = tf.io.read_file(path)
        if fused:
            top, left = (tf.random.uniform((), 0, SIDE - CROP + 1, tf.int32) for _ in range(2))
            image = tf.image.decode_and_crop_jpeg(content, [top, left, CROP, CROP], channels=3)
        else:
            image = tf.image.random_crop(tf.io.decode_jpeg(content, channels=3), (CROP, CROP, 3))
        return tf.image.random_flip_left_right(image)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 2 * cores()
    dataset = tf.data.Dataset.from_tensor_slices([str(folder / name) for name in names]).with_options(options)
    dataset = dataset.shuffle(len(names), seed=0).repeat().map(load, num_parallel_calls=2 * cores())
    return iter(dataset.batch(BATCH, drop_remainder=True).prefetch(2).as_numpy_iterator())


def torch_loader(folder: Path, names: list[str]) -> Iterator[np.ndarray]:
    """Read with torch's DataLoader: torchvision's transforms on Pillow images, and a worker process a core."""
    import torch
    from torchvision import transforms

    class Files(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.transform = transforms.Compose(
                [transforms.RandomCrop(CROP), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
            )

        def __len__(self) -> int:
            return len(names)

        def __getitem__(self, index: int) -> "torch.Tensor":
            return self.transform(Image.open(folder / names[index]).convert("RGB"))

    files = Files()
    while True:
        loader = torch.utils.data.DataLoader(files, BATCH, shuffle=True, num_workers=cores(), drop_last=True)
        yield from (batch.numpy() for batch in loader)


READERS: dict[str, Callable[[Path, list[str]], Iterator[np.ndarray]]] = {
    "adsq_jax": ours,
    "tf.data": functools.partial(tf_data, fused=False),
    "tf.data, fused decode and crop": functools.partial(tf_data, fused=True),
    "torch DataLoader": torch_loader,
}

BY_WORKERS = {f"workers: {count}": functools.partial(ours, threads=1, workers=count) for count in WORKERS}


def speed_of(batches: Iterator[np.ndarray]) -> float:
    """Measure images a second, after a few batches."""
    for _ in range(WARM):
        next(batches)
    began = time.perf_counter()
    for batch in itertools.islice(batches, BATCHES):
        assert batch.size == BATCH * CROP * CROP * 3
        assert batch.dtype == np.uint8
    return BATCHES * BATCH / (time.perf_counter() - began)


def measure(folder: Path, readers: Iterable[str]) -> dict[str, list[float]]:
    """Measure readers in turns, each in its own process: TensorFlow and PyTorch don't work in one."""
    speeds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(TURNS):
        for name, turns in speeds.items():
            command = [sys.executable, __file__, f"--reader={name}", f"--folder={folder}"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            turns.append(float(done.stdout.split()[-1]))
    return speeds


def compare(folder: Path) -> dict:
    """Measure all readers, and the speed by worker processes."""
    speeds = measure(folder, [*READERS, *BY_WORKERS])
    rows = {
        name: {
            "images_per_second": median(turns),
            "adsq_jax_times_as_fast": median(a / b for a, b in zip(speeds["adsq_jax"], turns, strict=True)),
            "turns": turns,
        }
        for name, turns in speeds.items()
    }
    alone = speeds["workers: 0"]
    return {
        "readers": {name: rows[name] for name in READERS},
        "workers": {
            name: {
                "images_per_second": rows[name]["images_per_second"],
                "times_one_thread": median(a / b for a, b in zip(speeds[name], alone, strict=True)),
                "turns": speeds[name],
            }
            for name in BY_WORKERS
        },
    }


def long_list(folder: Path) -> dict:
    """Measure a list of a million lines with 21 labels each: seconds to read it, and bytes an image in memory."""
    random = np.random.default_rng(0)
    values = np.where(random.random((LINES, 21)) < 0.12, b" 1", b" 0")
    lines = (b"images/%04d_%010d.jpg" % (k % 700, k) + b"".join(row) for k, row in enumerate(values))
    (folder / "database.txt").write_bytes(b"\n".join(lines))
    began = time.perf_counter()
    parsed = parse(folder / "database.txt")
    names = parsed.paths
    in_memory = Names(names), Labels.from_packed(parsed.labels, classes=parsed.classes)
    return {
        "lines": len(names),
        "seconds": time.perf_counter() - began,
        "bytes_per_image": sum(part.nbytes for part in in_memory) / len(names),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    """Measure, print and write; or run a reader's process, which prints its speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=storage.path, default=ROOT / "benchmarks" / "results" / "input" / "input.json")
    parser.add_argument("--reader", choices=[*READERS, *BY_WORKERS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=storage.path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reader:
        names = sorted(path.name for path in arguments.folder.glob("*.jpg"))
        flags.FLAGS.mark_as_parsed()  # grain asks for them before it starts processes
        print(speed_of({**READERS, **BY_WORKERS}[arguments.reader](arguments.folder, names)), flush=True)
        os._exit(0)  # without waiting for the reader's threads and processes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lists = long_list(folder)
        pictures(folder)
        compared = compare(folder)
    content = {
        **compared,
        "list": lists,
        "machine": f"{os.uname().machine}, {cores()} cores",
        **environment.environment(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    for name, row in compared["readers"].items():
        print(
            f"{name:32} {row['images_per_second']:7.0f} images/s; adsq_jax is {row['adsq_jax_times_as_fast']:.2f} times as fast"
        )
    for name, row in compared["workers"].items():
        print(f"{name:32} {row['images_per_second']:7.0f} images/s, {row['times_one_thread']:.2f} times one thread")
    print(f"{lists['lines']:,} list lines: {lists['seconds']:.1f} s, {lists['bytes_per_image']:.0f} bytes an image")


if __name__ == "__main__":
    main()
