"""Several processes that train together, through the command line: one run, whatever each of them has, or may happen to it."""

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
import test_benchmarks
from PIL import Image

ROOT = Path(__file__).parents[2]
BATCH, STEPS = 96, 60  # 1,000 images: three rounds of ten updates a network
SECONDS = 240  # more than any of these runs takes


benchmark = test_benchmarks.load("processes")


def flags(count, devices):
    return benchmark.sizes(count, devices, steps=STEPS, batch_size=BATCH)


def codes(workdir):
    found = {path.name: path.read_bytes() for path in (workdir / "codes").glob("*.npy")}
    assert len(found) == 10
    return found


def errors(said):
    """Of each process, the one line that says what is wrong."""
    found = [[line for line in text.splitlines() if line.startswith("error:")] for text in said]
    assert [len(lines) for lines in found] == [1] * len(said), said
    assert not any("Traceback" in text for text in said), said
    return [line for [line] in found]


def wait_for(condition, found):
    """Waits until something holds, which must be before the processes end."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert all(process.poll() is None for process in found.processes), found.said()
        assert time.monotonic() < deadline, found.said()
        time.sleep(0.02)


def lines(workdir, phase="img_net"):
    path = workdir / "metrics.jsonl"
    return path.read_text().count(f'"{phase}"') if path.exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run by so many processes, on so many devices each, that nothing happened to; made when first wanted."""
    made = {}

    def of(count, devices):
        if (count, devices) not in made:
            folder = tmp_path_factory.mktemp(f"whole_{count}x{devices}")
            made[count, devices] = folder / "run"
            benchmark.run(count, folder / "run", *flags(count, devices), logs=folder / "logs", timeout=SECONDS)
        return made[count, devices]

    return of


def assert_same_training(found, expected):
    """Losses of all updates, of the same steps, to 1e-5, and mAP within .005."""
    assert len(benchmark.losses(expected)) == STEPS
    assert benchmark.difference(benchmark.losses(found), benchmark.losses(expected)) < 1e-5
    assert abs(benchmark.mean_average_precision(found) - benchmark.mean_average_precision(expected)) < 0.005


@pytest.mark.parametrize(
    ("count", "devices"),
    [(2, 1), (2, 3), pytest.param(4, 1, marks=pytest.mark.slow)],
)
def test_processes_train_as_one(whole, count, devices):
    """Losses over 60 steps and the mAP are those of one process on one device; 1,000 images on 6 devices leave a filling."""
    assert_same_training(whole(count, devices), whole(1, 1))
    result = json.loads((whole(count, devices) / "result.json").read_text())
    assert result["machine"].startswith(f"{count * devices} x cpu")
    assert not [path.name for path in (whole(count, devices) / "codes").iterdir() if path.name.startswith(".")]


def stop(workdir, logs, count, devices, *, to):
    """Sends SIGTERM to one process of a run in the midst of training; gives the step at which all have saved."""
    with benchmark.started(count, workdir, *flags(count, devices), logs=logs) as found:
        wait_for(lambda: lines(workdir) >= 3, found)
        found.processes[to].send_signal(signal.SIGTERM)
        assert found.wait(timeout=SECONDS) == [0] * count, found.said()
        for said in found.said():
            assert said.splitlines()[-1] == f"stopped: what is saved is in {workdir}; resume with the same command"
    assert not (workdir / "result.json").exists()
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def resume(workdir, logs, count, devices, *, step):
    """Goes on with a run that was stopped at a step, to its end."""
    benchmark.run(count, workdir, *flags(count, devices), logs=logs, timeout=SECONDS)
    assert f"goes on from step {step} of {STEPS}" in (logs / "0.log").read_text()


def test_sigterm_to_one_process_stops_all_and_they_or_one_alone_go_on(whole, tmp_path):
    """SIGTERM to process 1 of 2: both save and end with 0; the same command gives the same codes, one alone the same losses."""
    run, copy = tmp_path / "run", tmp_path / "copy"
    step = stop(run, tmp_path / "logs", 2, 3, to=1)
    assert 0 < step < STEPS
    shutil.copytree(run, copy)
    resume(run, tmp_path / "again", 2, 3, step=step)
    assert codes(run) == codes(whole(2, 3))
    resume(copy, tmp_path / "alone", 1, 3, step=step)
    assert_same_training(copy, whole(2, 3))


def test_two_processes_go_on_with_what_one_began(whole, tmp_path):
    """A run of one process, stopped: two go on at the same step with the same batches."""
    step = stop(tmp_path / "run", tmp_path / "logs", 1, 1, to=0)
    assert 0 < step < STEPS
    resume(tmp_path / "run", tmp_path / "again", 2, 1, step=step)
    assert_same_training(tmp_path / "run", whole(1, 1))


def test_another_config_in_one_process_is_refused_in_all(tmp_path):
    """All end with status 2 and a line that names the process and what differs; no folder is left."""
    with benchmark.started(2, tmp_path / "run", *flags(2, 1), logs=tmp_path / "logs", own={1: ["--config.seed=1"]}) as found:
        assert found.wait(timeout=SECONDS) == [2, 2], found.said()
        for error in errors(found.said()):
            assert "process 1 has another config than process 0" in error
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_shared_is_refused(tmp_path):
    """Each process has a folder of its own of the same name, as hosts without a common disk: all end with status 2."""
    folders = {0: tmp_path / "here", 1: tmp_path / "there"}
    for folder in folders.values():
        folder.mkdir()
    with benchmark.started(2, Path("run"), *flags(2, 1), logs=tmp_path / "logs", folders=folders) as found:
        assert found.wait(timeout=SECONDS) == [2, 2], found.said()
        assert all("--workdir=run is another folder" in error for error in errors(found.said()))


CRASH = """
import sys
from adsq_jax import command_line, main
from adsq_jax.training.rounds import Trainer
def step_1(*arguments, **options):
    raise KeyError("a defect")
Trainer.step_1 = step_1
command_line.run(main.main)
"""


def test_a_defect_in_one_process_ends_all(tmp_path):
    """An exception that nobody foresaw is told with its traceback, and none is left waiting."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    own = [*benchmark.SMALL, *flags(2, 1), f"--workdir={tmp_path / 'run'}", f"--coordinator=localhost:{port}", "--processes=2"]
    programs = (["-m", "adsq_jax.main"], ["-c", CRASH])
    running = [
        subprocess.Popen([sys.executable, *program, *own, f"--process={number}"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for number, program in enumerate(programs)
    ]
    try:
        said = [process.communicate(timeout=SECONDS)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert running[1].returncode == 1, said[1]
    assert "KeyError: 'a defect'" in said[1]
    assert running[0].returncode != 0


def test_a_port_in_use(tmp_path):
    """The coordinator's port belongs to somebody else: one line and status 2."""
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
    """The data folder isn't there for process 1 alone: all end with status 2 and say so, process 0 whose it is."""
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "here" / "pictures" / name).mkdir(parents=True)
        for number in range(64):
            picture = Image.fromarray(random.integers(0, 256, (16, 16, 3)).astype(np.uint8))
            picture.save(tmp_path / "here" / "pictures" / name / f"{number}.png")
    (tmp_path / "there").mkdir()
    base = [f"--config={ROOT / 'configs' / 'folder.py'}", "--config.data.directory=pictures"]
    folders = {0: tmp_path / "here", 1: tmp_path / "there"}
    with benchmark.started(2, tmp_path / "run", logs=tmp_path / "logs", base=base, folders=folders) as found:
        assert found.wait(timeout=SECONDS) == [2, 2], found.said()
        told = errors(found.said())
    assert all("pictures" in error for error in told), told
    assert told[0].startswith("error: process 1 says: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("process", [0, 1])
def test_killed_it_ends_the_others_and_a_second_run_is_refused(tmp_path, process):
    """While a run lasts, a second on its folder ends with 2; kill -9 of one process ends the other, not with 0."""
    run = tmp_path / "run"
    with benchmark.started(2, run, *flags(2, 1), "--config.train.rounds=3000", logs=tmp_path / "logs") as found:
        wait_for(lambda: lines(run) >= 3, found)
        if process:
            with benchmark.started(2, run, *flags(2, 1), "--config.train.rounds=3000", logs=tmp_path / "second") as second:
                assert second.wait(timeout=SECONDS) == [2, 2], second.said()
                assert all("is in use by another run" in error for error in errors(second.said()))
            assert all(each.poll() is None for each in found.processes), found.said()
        found.processes[process].kill()
        assert found.processes[1 - process].wait(120) != 0, found.said()
