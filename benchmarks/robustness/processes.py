"""Check that 1, 2 and 4 processes on 1, 4 and 8 devices each train alike.

    python -m benchmarks.robustness.processes [--out=DIR]

Every topology runs configs/digits.py with toy sizes by `python -m adsq_jax.main`, all processes on this machine, on fake
devices of its CPU, for at least STEPS updates in two or more rounds. Each update's loss must agree with that of one process on
one device to TOLERANCE, and mAP to MAP_TOLERANCE; else the exit status is 1.

Seconds are of processes that share cores and communicate by loopback: they say nothing about separate machines.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
STEPS, TOLERANCE, MAP_TOLERANCE = 50, 1e-5, 0.005
PROCESSES, DEVICES = (1, 2, 4), (1, 4, 8)
SMALL = (
    f"--config={ROOT / 'configs' / 'digits.py'}:bits=12",
    "--config.model.width=4",
    "--config.model.features=16",
    "--config.label_net.hidden=16",
    "--config.label_net.steps=20",
    "--config.train.epochs_per_round=1",
    "--config.train.log_every=1",
    # Adam divides a nearly dead channel's gradient, a rounding error, by its size, which could flip a bit in the B-step. With a
    # larger eps, losses differ only by the order of summation.
    "--config.optim.arguments={'eps': 1e-4}",
)


class Started(NamedTuple):
    """Processes that train together, and the file of each one's output and standard error."""

    processes: list[subprocess.Popen]
    logs: list[Path]

    def wait(self, *, timeout: float) -> list[int]:
        """Wait for all processes; return their exit statuses by number.

        Raises:
          subprocess.TimeoutExpired: one is still running.
        """
        deadline = time.monotonic() + timeout
        return [process.wait(max(0.0, deadline - time.monotonic())) for process in self.processes]

    def outputs(self) -> list[str]:
        """Return the output of each process so far."""
        return [log.read_text() for log in self.logs]


@contextlib.contextmanager
def started(
    count: int,
    workdir: Path,
    *arguments: str,
    logs: Path,
    base: Sequence[str] = SMALL,
    own: Mapping[int, Sequence[str]] | None = None,
    folders: Mapping[int, Path] | None = None,
) -> Iterator[Started]:
    """Start the processes of one run; at the end of the block none of them is left.

    Args:
      count: the number of processes; one alone gets no coordinator.
      workdir: the run's folder.
      *arguments: flags of all processes.
      logs: a folder for their output; made if it isn't there.
      base: more flags of all processes: the config.
      own: process -> more flags of that process alone.
      folders: process -> folder to start it in; default: the repository's root.

    Yields:
      The processes, by number.
    """
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    logs.mkdir(parents=True, exist_ok=True)
    processes = Started([], [logs / f"{process}.log" for process in range(count)])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # a process may start in another folder
    try:
        for process, log in enumerate(processes.logs):
            connection = (
                [f"--coordinator=localhost:{port}", f"--processes={count}", f"--process={process}"] if count > 1 else []
            )
            command = [sys.executable, "-m", "adsq_jax.main", *base, *arguments, *(own or {}).get(process, ()), *connection]
            with log.open("w") as file:
                processes.processes.append(
                    subprocess.Popen(
                        [*command, f"--workdir={workdir}"],
                        cwd=(folders or {}).get(process, ROOT),
                        env=environment,
                        stdout=file,
                        stderr=file,
                    )
                )
        yield processes
    finally:
        for process in processes.processes:
            process.kill()
        for process in processes.processes:
            process.wait()


def run(count: int, workdir: Path, *arguments: str, logs: Path, timeout: float = 600) -> float:
    """Run processes to the end of a run; return the seconds.

    Raises:
      RuntimeError: one of them failed; the text has the end of its output.
    """
    began = time.monotonic()
    with started(count, workdir, *arguments, logs=logs) as processes:
        statuses = processes.wait(timeout=timeout)
        for status, output in zip(statuses, processes.outputs(), strict=True):
            if status:
                raise RuntimeError(f"statuses {statuses}: {output[-2000:]}")
    return time.monotonic() - began


def losses(workdir: Path) -> dict[int, float]:
    """Return the loss of every update of the ImgNets by step."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["phase"] == "img_net"}


def mean_average_precision(workdir: Path) -> float:
    """Return the run's mAP."""
    return json.loads((workdir / "result.json").read_text())["map"]


def difference(losses_: Mapping[int, float], expected: Mapping[int, float]) -> float:
    """Return the greatest relative difference of losses.

    Raises:
      ValueError: they are of different steps.
    """
    if losses_.keys() != expected.keys():
        raise ValueError(f"losses of different steps: {sorted(losses_.keys() ^ expected.keys())}")
    return max(abs(losses_[step] - expected[step]) / abs(expected[step]) for step in expected)


def sizes(count: int, devices: int, *, steps: int, batch_size: int) -> list[str]:
    """Return the flags of a topology.

    Args:
      count: the number of processes.
      devices: devices of each process.
      steps: updates, at least; rounds are whole.
      batch_size: a multiple of the number of all devices.
    """
    if batch_size % (count * devices):
        raise ValueError(f"batch_size={batch_size}: expected a multiple of {count} x {devices} devices")
    rounds = -(-steps // (2 * (1_000 // batch_size)))  # f and g, 1,000 images
    return [f"--config.train.rounds={rounds}", f"--config.train.batch_size={batch_size}", f"--config.host_devices={devices}"]


def compare(folder: Path, processes: Sequence[int], devices: Sequence[int], *, steps: int, batch_size: int) -> list[dict]:
    """Run every topology in a folder, one process on one device first.

    Returns:
      Rows: processes, devices of each, steps, loss_difference and map_difference from the first, map, seconds, agrees.
    """
    rows: list[dict] = []
    topologies = sorted({(1, 1), *((count, each) for count in processes for each in devices)})
    first = folder / "1x1"
    for count, each in topologies:
        workdir = folder / f"{count}x{each}"
        flags = sizes(count, each, steps=steps, batch_size=batch_size)
        seconds = run(count, workdir, *flags, logs=folder / f"logs_{workdir.name}")
        loss_difference = difference(losses(workdir), losses(first))
        map_difference = mean_average_precision(workdir) - mean_average_precision(first)
        row = {
            "processes": count,
            "devices_of_each": each,
            "steps": len(losses(workdir)),
            "loss_difference": loss_difference,
            "map": mean_average_precision(workdir),
            "map_difference": map_difference,
            "seconds": seconds,
            "agrees": loss_difference <= TOLERANCE and abs(map_difference) <= MAP_TOLERANCE,
        }
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print and write."""
    from adsq_jax.devices import host
    from adsq_jax.run import environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "processes", help="folder for processes.json"
    )
    parser.add_argument("--processes", type=int, nargs="+", default=PROCESSES, help="numbers of processes")
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES, help="numbers of devices of each process")
    parser.add_argument("--steps", type=int, default=STEPS, help="updates, at least")
    parser.add_argument("--batch_size", type=int, default=96, help="a multiple of the number of all devices")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adsq_jax_processes_") as folder:
        rows = compare(
            Path(folder), arguments.processes, arguments.devices, steps=arguments.steps, batch_size=arguments.batch_size
        )
    agree = all(row["agrees"] for row in rows)
    content = {
        **environment.environment(),
        "machine": f"{os.uname().machine}, {host.cores()} cores",
        "batch_size": arguments.batch_size,
        "tolerance": TOLERANCE,
        "map_tolerance": MAP_TOLERANCE,
        "agree": agree,
        "topologies": rows,
    }
    print(json.dumps(content, indent=2))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "processes.json").write_text(json.dumps(content, indent=2) + "\n")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
