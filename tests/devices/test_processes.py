"""Several processes that train together, through the command line: they are one run, and an error in one stops all."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.robustness import processes as benchmark

ROOT = Path(__file__).parents[2]
BATCH, STEPS = 96, 60  # 1,000 images: three rounds of ten updates a network
SECONDS = 240  # more than any of these runs takes


def flags(count, devices):
    return benchmark.sizes(count, devices, steps=STEPS, batch_size=BATCH)


def codes(workdir):
    files = {path.name: path.read_bytes() for path in (workdir / "codes").glob("*.npy")}
    assert len(files) == 10
    return files


def errors(outputs):
    """Return the one error line of each process."""
    lines = [[line for line in text.splitlines() if line.startswith("error:")] for text in outputs]
    assert [len(of_process) for of_process in lines] == [1] * len(outputs), outputs
    assert not any("Traceback" in text for text in outputs), outputs
    return [line for [line] in lines]


def wait_for(condition, started):
    """Wait until a condition holds, while all processes run."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert all(process.poll() is None for process in started.processes), started.outputs()
        assert time.monotonic() < deadline, started.outputs()
        time.sleep(0.02)


def lines(workdir, phase="img_net"):
    path = workdir / "metrics.jsonl"
    return path.read_text().count(f'"{phase}"') if path.exists() else 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return a function that trains once with a number of processes and devices of each, and returns the run's folder."""
    runs = {}

    def train(count, devices):
        if (count, devices) not in runs:
            folder = tmp_path_factory.mktemp(f"run_{count}x{devices}")
            runs[count, devices] = folder / "run"
            benchmark.run(count, folder / "run", *flags(count, devices), logs=folder / "logs", timeout=SECONDS)
        return runs[count, devices]

    return train


def assert_same_training(workdir, expected):
    """Check that two runs have the same losses at all steps, to 1e-5, and mAP within .005."""
    assert len(benchmark.losses(expected)) == STEPS
    assert benchmark.difference(benchmark.losses(workdir), benchmark.losses(expected)) < 1e-5
    assert abs(benchmark.mean_average_precision(workdir) - benchmark.mean_average_precision(expected)) < 0.005


@pytest.mark.parametrize(
    ("count", "devices"),
    [(2, 1), (2, 3), pytest.param(4, 1, marks=pytest.mark.slow)],
)
def test_processes_train_as_one(undisturbed, count, devices):
    """60 losses and the mAP are those of one process on one device; 1,000 images on 6 devices need padding."""
    assert_same_training(undisturbed(count, devices), undisturbed(1, 1))
    result = json.loads((undisturbed(count, devices) / "result.json").read_text())
    assert result["machine"].startswith(f"{count * devices} x cpu")
    assert not [path.name for path in (undisturbed(count, devices) / "codes").iterdir() if path.name.startswith(".")]


def stop(workdir, logs, count, devices, *, to):
    """Send SIGTERM to one process during training, and return the step at which all saved."""
    with benchmark.started(count, workdir, *flags(count, devices), logs=logs) as started:
        wait_for(lambda: lines(workdir) >= 3, started)
        started.processes[to].send_signal(signal.SIGTERM)
        assert started.wait(timeout=SECONDS) == [0] * count, started.outputs()
        for output in started.outputs():
            line = output.splitlines()[-1]
            assert line.startswith("stopped: ")
            assert f" {workdir};" in line
    assert not (workdir / "result.json").exists()
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def resume(workdir, logs, count, devices, *, step):
    """Resume a run that was stopped at a step, and train it to the end."""
    benchmark.run(count, workdir, *flags(count, devices), logs=logs, timeout=SECONDS)
    assert f"continuing from step {step} of {STEPS}" in (logs / "0.log").read_text()


def test_sigterm_to_one_process_stops_all_and_they_or_one_alone_resume(undisturbed, tmp_path):
    """After SIGTERM to one of two, both save and end with 0; both resume to the same codes, one alone to the same losses."""
    run, copy = tmp_path / "run", tmp_path / "copy"
    step = stop(run, tmp_path / "logs", 2, 3, to=1)
    assert 0 < step < STEPS
    shutil.copytree(run, copy)
    resume(run, tmp_path / "again", 2, 3, step=step)
    assert codes(run) == codes(undisturbed(2, 3))
    resume(copy, tmp_path / "alone", 1, 3, step=step)
    assert_same_training(copy, undisturbed(2, 3))


def test_two_processes_resume_a_run_of_one(undisturbed, tmp_path):
    """Two processes resume a stopped run of one, at the same step and with the same batches."""
    step = stop(tmp_path / "run", tmp_path / "logs", 1, 1, to=0)
    assert 0 < step < STEPS
    resume(tmp_path / "run", tmp_path / "again", 2, 1, step=step)
    assert_same_training(tmp_path / "run", undisturbed(1, 1))


def test_another_config_in_one_process_is_refused_in_all(tmp_path):
    """All end with status 2 and a line with the process and the difference; no folder is left."""
    other = {1: ["--config.seed=1"]}
    with benchmark.started(2, tmp_path / "run", *flags(2, 1), logs=tmp_path / "logs", own=other) as started:
        assert started.wait(timeout=SECONDS) == [2, 2], started.outputs()
        for error in errors(started.outputs()):
            assert "process 1 has another config than process 0" in error
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_shared_is_refused(tmp_path):
    """If each process has its own folder of that name, as on hosts without a shared disk, all end with status 2."""
    folders = {0: tmp_path / "here", 1: tmp_path / "there"}
    for folder in folders.values():
        folder.mkdir()
    with benchmark.started(2, Path("run"), *flags(2, 1), logs=tmp_path / "logs", folders=folders) as started:
        assert started.wait(timeout=SECONDS) == [2, 2], started.outputs()
        assert all("--workdir=run is another folder" in error for error in errors(started.outputs()))


CRASH = """
import sys
from adsq_jax import command_line, main
from adsq_jax.training import rounds
def train_label_net(*arguments, **options):
    raise KeyError("a defect")
rounds.train_label_net = train_label_net
command_line.run(main.main)
"""


def test_a_defect_in_one_process_ends_all(tmp_path):
    """An unexpected exception is shown with its traceback, and no process is left waiting."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    options = [
        *benchmark.SMALL,
        *flags(2, 1),
        f"--workdir={tmp_path / 'run'}",
        f"--coordinator=localhost:{port}",
        "--processes=2",
    ]
    programs = (["-m", "adsq_jax.main"], ["-c", CRASH])
    running = [
        subprocess.Popen(
            [sys.executable, *program, *options, f"--process={number}"], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for number, program in enumerate(programs)
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert running[1].returncode == 1, outputs[1]
    assert "KeyError: 'a defect'" in outputs[1]
    assert running[0].returncode != 0


def test_a_port_in_use(tmp_path):
    """If the coordinator's port is in use, there is one line and status 2."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        command = [*benchmark.SMALL, f"--workdir={tmp_path / 'run'}", f"--coordinator=localhost:{port}", "--processes=2"]
        done = subprocess.run(
            [sys.executable, "-m", "adsq_jax.main", *command, "--process=0"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2, done.stderr
    assert "give another port" in done.stderr.splitlines()[-1]


def test_missing_data_in_one_process_end_all(tmp_path):
    """If only process 1 lacks the data, all end with status 2 and say so, and process 0 names the process."""
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "here" / "pictures" / name).mkdir(parents=True)
        for number in range(64):
            picture = Image.fromarray(random.integers(0, 256, (16, 16, 3)).astype(np.uint8))
            picture.save(tmp_path / "here" / "pictures" / name / f"{number}.png")
    (tmp_path / "there").mkdir()
    base = [f"--config={ROOT / 'configs' / 'folder.py'}", "--config.data.directory=pictures"]
    folders = {0: tmp_path / "here", 1: tmp_path / "there"}
    with benchmark.started(2, tmp_path / "run", logs=tmp_path / "logs", base=base, folders=folders) as started:
        assert started.wait(timeout=SECONDS) == [2, 2], started.outputs()
        messages = errors(started.outputs())
    assert all("pictures" in message for message in messages), messages
    assert messages[0].startswith("error: process 1 says: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("process", [0, 1])
def test_killed_it_ends_the_others_and_a_second_run_is_refused(tmp_path, process):
    """During a run, a second one in its folder ends with 2; kill -9 of one process ends the other, not with 0."""
    run = tmp_path / "run"
    with benchmark.started(2, run, *flags(2, 1), "--config.train.rounds=3000", logs=tmp_path / "logs") as started:
        wait_for(lambda: lines(run) >= 3, started)
        if process:
            with benchmark.started(2, run, *flags(2, 1), "--config.train.rounds=3000", logs=tmp_path / "second") as second:
                assert second.wait(timeout=SECONDS) == [2, 2], second.outputs()
                assert all("is in use by another run" in error for error in errors(second.outputs()))
            assert all(each.poll() is None for each in started.processes), started.outputs()
        started.processes[process].kill()
        assert started.processes[1 - process].wait(120) != 0, started.outputs()
