"""What only a GPU can show, in one run: `python -m benchmarks.speed.gpu [--pictures=FOLDER] [--out=FILE] [--folder=FOLDER]`.

- The same config and seed twice with `XLA_FLAGS=--xla_gpu_deterministic_ops=true`: bits that differ. A third run is killed by
  SIGKILL after its first checkpoint, and goes on: bits that differ. A fourth is without the flag.
- With --pictures, `configs/stamps.py` on them: mAP and seconds; its model exported, and run as CUDA by the file's own example.
- Images a second of one update of both ResNet-50s and of encoding, at 224x224, in float32 and bfloat16.

Kept in benchmarks/results/gpu/gpu.json.
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

import numpy as np

from adsq_jax.data import gallery as galleries
from adsq_jax.devices import sharded_database
from adsq_jax.run import environment
from benchmarks.speed.backbones import Case, Ours

ROOT = Path(__file__).parents[2]
TURNS = 5
SPEEDS = {
    "updates of both ResNet-50s": Case("resnet50", 224, 128, 10, True, images=1_000, bits=64),
    "encoding, ResNet-50": Case("resnet50", 224, 256, 10, False, images=512, bits=64),
    "encoding, EfficientNet-Lite0": Case("efficientnet_lite0", 224, 256, 10, False, images=512, bits=64),
}


def command(config: str, workdir: Path, *knobs: str) -> list[str]:
    """The command that trains."""
    return [sys.executable, "-m", "adsq_jax.main", f"--config={config}", f"--workdir={workdir}", *knobs]


def trained(config: str, workdir: Path, *knobs: str, deterministic: bool) -> dict[str, Any]:
    """Trains to the end; what result.json holds."""
    flags = "--xla_gpu_deterministic_ops=true" if deterministic else ""
    subprocess.run(command(config, workdir, *knobs), check=True, cwd=ROOT, env={**os.environ, "XLA_FLAGS": flags})
    return json.loads((workdir / "result.json").read_text())


def killed(config: str, workdir: Path) -> None:
    """Trains until there is a checkpoint, and kills."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
    with subprocess.Popen(command(config, workdir), cwd=ROOT, env=environment) as process:
        while process.poll() is None and not list(workdir.glob("checkpoints/[0-9]*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"the run to be killed ended with status {process.returncode}")


def codes_of(workdir: Path) -> np.ndarray:
    """All hash codes of a run, as bytes."""
    return np.concatenate([np.load(path).reshape(-1) for path in sorted((workdir / "codes").glob("*_[fg]*.npy"))])


def differing(a: Path, b: Path) -> int:
    """Bits in which the codes of two runs differ."""
    first, second = codes_of(a), codes_of(b)
    assert first.dtype == np.uint8
    assert len(first) == len(second) > 0
    return int(np.unpackbits(first ^ second).sum())


def digits(folder: Path) -> dict[str, Any]:
    """Four runs of one config and seed."""
    config = "configs/digits.py"
    first = trained(config, folder / "a", deterministic=True)
    trained(config, folder / "b", deterministic=True)
    killed(config, folder / "c")
    trained(config, folder / "c", deterministic=True)
    trained(config, folder / "d", deterministic=False)
    return {
        "map": first["map"],
        "seconds": first["seconds"],
        "bits": 8 * len(codes_of(folder / "a")),
        "bits_that_differ_in_a_second_run": differing(folder / "a", folder / "b"),
        "bits_that_differ_after_a_kill": differing(folder / "a", folder / "c"),
        "bits_that_differ_without_the_flag": differing(folder / "a", folder / "d"),
    }


def pictures(place: str, folder: Path) -> dict[str, Any]:
    """Trains on pictures, exports, and runs the exported encoder; distances by it and by the model."""
    found = trained("configs/stamps.py", folder / "run", f"--config.data.directory={place}", deterministic=False)
    there, encoder = folder / "run", folder / "encoder"
    subprocess.run([sys.executable, "-m", "adsq_jax.export", f"--workdir={there}", f"--out={encoder}"], check=True, cwd=ROOT)
    gallery = galleries.read(place, directory="")
    paths = [gallery.id(row) for row in range(min(200, len(gallery)))]
    told = subprocess.run([sys.executable, encoder / "example.py", *paths], check=True, capture_output=True, text=True).stdout
    theirs = np.array([list(bytes.fromhex(line.split()[0])) for line in told.splitlines()], np.uint8)
    script = "import sys, adsq_jax\nprint(adsq_jax.load(sys.argv[1]).encode(sys.argv[2:], part='query').tobytes().hex())"
    ours = subprocess.run([sys.executable, "-c", script, there, *paths], check=True, capture_output=True, text=True, cwd=ROOT)
    codes = np.frombuffer(bytes.fromhex(ours.stdout.strip()), np.uint8)
    return {
        "map": found["map"],
        "seconds": found["seconds"],
        "bits": 8 * len(codes),
        "bits_of_the_exported_encoder_that_differ": int(np.unpackbits(codes ^ theirs.reshape(-1)).sum()),
    }


def speed(case: Case) -> float:
    """Images a second, the median of the turns."""
    made, taken = Ours(case), []
    made.run(3)  # compiles
    for _ in range(TURNS):
        began = time.perf_counter()
        made.run(case.calls)
        taken.append(time.perf_counter() - began)
    return case.batch * case.calls * (2 if case.train else 1) / median(taken)


def main() -> None:
    """Runs all, prints, and writes after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", help="folder of folders of pictures")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu" / "gpu.json")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "gpu", help="for the runs")
    given = parser.parse_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes take their turns
    given.out.parent.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], Any]] = {"digits": partial(digits, given.folder / "digits")}
    if given.pictures:
        parts["pictures"] = partial(pictures, given.pictures, given.folder / "pictures")
    for name, case in SPEEDS.items():
        for dtype in ("float32", "bfloat16"):
            parts[f"{name}, {dtype}: images a second"] = partial(speed, replace(case, dtype=dtype))
    found: dict[str, Any] = {}
    for name, part in parts.items():
        found[name] = part()
        print(json.dumps({name: found[name]}), flush=True)
        about = {**environment.environment(), "machine": sharded_database.ShardedDatabase().describe(), "seed": 0}
        given.out.write_text(json.dumps({**about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
