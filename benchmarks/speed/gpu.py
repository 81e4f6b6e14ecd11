"""Measure what only a GPU can show: `python -m benchmarks.speed.gpu [--pictures=FOLDER] [--out=FILE] [--folder=FOLDER]`.

With --evaluator, which takes a few minutes, only the evaluator's kernels and the search, by `kernels.py`: each against the
CPU's counts first, then its time. Writes benchmarks/results/gpu/kernels.json. Without it:

- The same config and seed twice with `XLA_FLAGS=--xla_gpu_deterministic_ops=true`: bits that differ. A third run is killed by
  SIGKILL after its first checkpoint, and continued: bits that differ. A fourth is without the flag.
- With --pictures, `configs/stamps.py` on them: mAP and seconds; its model exported, and run as CUDA by the exported example.py.
- Images a second of one update of both ResNet-50s and of encoding, at 224x224, in float32 and bfloat16.
- One update of both ResNet-50s in bfloat16, batch 256: operations a second, as XLA counts them, over those of a product of two
  large bfloat16 matrices in the same run.

Writes benchmarks/results/gpu/gpu.json.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import storage
from adsq_jax.data import gallery as galleries
from adsq_jax.devices import sharded_database
from adsq_jax.run import environment
from adsq_jax.training import rounds
from benchmarks.speed import kernels
from benchmarks.speed.backbones import Case, Ours
from benchmarks.speed.evaluator import seconds

ROOT = Path(__file__).parents[2]
TURNS = 5
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
SPEEDS = {
    "updates of both ResNet-50s": Case("resnet50", 224, 128, 10, True, images=1_000, bits=64),
    "encoding, ResNet-50": Case("resnet50", 224, 256, 10, False, images=512, bits=64),
    "encoding, EfficientNet-Lite0": Case("efficientnet_lite0", 224, 256, 10, False, images=512, bits=64),
}


def command(config: str, workdir: Path, *flags: str) -> list[str]:
    """Return the command that trains."""
    return [sys.executable, "-m", "adsq_jax.main", f"--config={config}", f"--workdir={workdir}", *flags]


def train(config: str, workdir: Path, *flags: str, deterministic: bool) -> dict[str, Any]:
    """Train to the end; return what result.json holds."""
    environment = {**os.environ, "XLA_FLAGS": DETERMINISTIC if deterministic else ""}
    subprocess.run(command(config, workdir, *flags), check=True, cwd=ROOT, env=environment)
    return json.loads((workdir / "result.json").read_text())


def train_and_kill(config: str, workdir: Path) -> None:
    """Train until there is a checkpoint, and kill."""
    environment = {**os.environ, "XLA_FLAGS": DETERMINISTIC}
    with subprocess.Popen(command(config, workdir), cwd=ROOT, env=environment) as process:
        while process.poll() is None and not list(workdir.glob("checkpoints/[0-9]*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"the run to be killed ended with status {process.returncode}")


def codes_of(workdir: Path) -> np.ndarray:
    """Return all hash codes of a run, as bytes."""
    return np.concatenate([np.load(path).reshape(-1) for path in sorted((workdir / "codes").glob("*_[fg]*.npy"))])


def differing(a: Path, b: Path) -> int:
    """Count the bits in which the codes of two runs differ."""
    first, second = codes_of(a), codes_of(b)
    assert first.dtype == np.uint8
    assert len(first) == len(second) > 0
    return int(np.unpackbits(first ^ second).sum())


def digits(folder: Path) -> dict[str, Any]:
    """Train a config and seed four times, and compare."""
    config = "configs/digits.py"
    first = train(config, folder / "a", deterministic=True)
    train(config, folder / "b", deterministic=True)
    train_and_kill(config, folder / "c")
    train(config, folder / "c", deterministic=True)
    train(config, folder / "d", deterministic=False)
    return {
        "map": first["map"],
        "seconds": first["seconds"],
        "bits": 8 * len(codes_of(folder / "a")),
        "bits_that_differ_in_a_second_run": differing(folder / "a", folder / "b"),
        "bits_that_differ_after_a_kill": differing(folder / "a", folder / "c"),
        "bits_that_differ_without_the_flag": differing(folder / "a", folder / "d"),
    }


def pictures(images: str, folder: Path) -> dict[str, Any]:
    """Train on pictures, export, and compare the codes of the exported encoder with the model's."""
    result = train("configs/stamps.py", folder / "run", f"--config.data.directory={images}", deterministic=False)
    run, encoder = folder / "run", folder / "encoder"
    subprocess.run([sys.executable, "-m", "adsq_jax.export", f"--workdir={run}", f"--out={encoder}"], check=True, cwd=ROOT)
    gallery = galleries.read(images, directory="")
    paths = [gallery.id(row) for row in range(min(200, len(gallery)))]
    printed = subprocess.run(
        [sys.executable, encoder / "example.py", *paths], check=True, capture_output=True, text=True
    ).stdout
    theirs = np.array([list(bytes.fromhex(line.split()[0])) for line in printed.splitlines()], np.uint8)
    encode = "encode(sys.argv[2:], part='query', packed=True)"
    script = f"import sys, adsq_jax\nprint(adsq_jax.load(sys.argv[1]).{encode}.tobytes().hex())"
    ours = subprocess.run([sys.executable, "-c", script, run, *paths], check=True, capture_output=True, text=True, cwd=ROOT)
    codes = np.frombuffer(bytes.fromhex(ours.stdout.strip()), np.uint8)
    return {
        "map": result["map"],
        "seconds": result["seconds"],
        "bits": 8 * len(codes),
        "bits_of_the_exported_encoder_that_differ": int(np.unpackbits(codes ^ theirs.reshape(-1)).sum()),
    }


def speed(case: Case) -> float:
    """Measure images a second, the median of the turns."""
    side, seconds = Ours(case), []
    side.run(3)  # compiles
    for _ in range(TURNS):
        began = time.perf_counter()
        side.run(case.calls)
        seconds.append(time.perf_counter() - began)
    return case.batch * case.calls * (2 if case.train else 1) / median(seconds)


def share_of_peak(case: Case, *, side: int = 8_192) -> dict[str, float]:
    """Measure updates, and their share of the device's fastest work: products of `side` x `side` matrices."""
    images = speed(case)
    ours = Ours(case)
    arguments = ours.nets["f"], ours.placed_targets, rounds.split_batch(ours.setup, ours.batch(0))
    update = ours.setup.donating_img_net_step.lower(*arguments).compile().cost_analysis()["flops"]
    matrix = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()  # compiles
    peak = 2 * side**3 / min(seconds(lambda: product(matrix, matrix).block_until_ready()) for _ in range(4 * TURNS))
    achieved = update * images / case.batch
    return {"images_a_second": images, "operations_a_second": achieved, "peak": peak, "share_of_peak": achieved / peak}


def main() -> None:
    """Measure, print and write, part by part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", help="folder of folders of pictures")
    parser.add_argument("--evaluator", action="store_true", help="only the evaluator's kernels and the search")
    parser.add_argument("--out", type=storage.path, help="the file of the results; default: one in benchmarks/results/gpu")
    parser.add_argument("--folder", type=storage.path, default=ROOT / "runs" / "gpu", help="folder for the runs")
    given = parser.parse_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes share the GPU
    out = given.out or ROOT / "benchmarks" / "results" / "gpu" / ("kernels.json" if given.evaluator else "gpu.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    if given.evaluator:
        measured = kernels.measure()
        print(kernels.table(measured))
        write(out, measured)
        return
    parts: dict[str, Callable[[], Any]] = {"digits": partial(digits, given.folder / "digits")}
    if given.pictures:
        parts["pictures"] = partial(pictures, given.pictures, given.folder / "pictures")
    for name, case in SPEEDS.items():
        for dtype in ("float32", "bfloat16"):
            parts[f"{name}, {dtype}: images a second"] = partial(speed, replace(case, dtype=dtype))
    largest = replace(SPEEDS["updates of both ResNet-50s"], batch=256, dtype="bfloat16")
    parts["updates of both ResNet-50s, bfloat16, batch 256"] = partial(share_of_peak, largest)
    measured = {}
    for name, part in parts.items():
        measured[name] = part()
        print(json.dumps({name: measured[name]}), flush=True)
        write(out, measured)


def write(out: Path, measured: dict[str, Any]) -> None:
    """Write what was measured, and by what."""
    about = {**environment.environment(), "machine": sharded_database.ShardedDatabase().describe(), "seed": 0}
    out.write_text(json.dumps({**about, **measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
