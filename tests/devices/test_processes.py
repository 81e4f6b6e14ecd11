"""Several processes that train together, through the command line: they are one run, and an error in one stops all."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import mock_data

from adsq_jax import command_line
from adsq_jax.run import workdir as run_folder
from benchmarks.robustness import processes as benchmark

ROOT = Path(__file__).parents[2]
# 1,000 images: two rounds of five updates a network. No bit of the B-step is so near a tie that rounding would flip it.
BATCH, STEPS = 192, 20
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


def stop(workdir, logs, count, devices, *, to):
    """Send SIGTERM to one process during training, and return the step at which all saved."""
    with benchmark.started(count, workdir, *flags(count, devices), logs=logs) as started:
        wait_for(lambda: lines(workdir) >= 1, started)
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


# Two processes connect, compile and train, three times, beside two runs of one: a minute and a half on two cores.
@pytest.mark.slow
def test_two_processes_train_stop_and_resume_as_one(undisturbed, tmp_path):
    """After SIGTERM to one of two, both save and end with 0; both resume, or one alone, to the losses and mAP of 1 x 1.

    Resumed by two, the codes are the bytes of an undisturbed run of two. 1,000 images on 6 devices need padding.
    """
    run, copy = tmp_path / "run", tmp_path / "copy"
    step = stop(run, tmp_path / "logs", 2, 3, to=1)
    assert 0 < step < STEPS
    shutil.copytree(run, copy)
    resume(run, tmp_path / "again", 2, 3, step=step)
    assert_same_training(run, undisturbed(1, 1))
    assert codes(run) == codes(undisturbed(2, 3))
    assert json.loads((run / "result.json").read_text())["machine"].startswith("6 x cpu")
    assert not [path.name for path in (run / "codes").iterdir() if path.name.startswith(".")]
    resume(copy, tmp_path / "alone", 1, 3, step=step)
    assert_same_training(copy, undisturbed(1, 1))


# Two or four processes connect, compile and train on two cores.
@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(2, 3), (4, 1)])
def test_processes_train_as_one(undisturbed, count, devices):
    """The losses and the mAP are those of one process on one device."""
    assert_same_training(undisturbed(count, devices), undisturbed(1, 1))
    result = json.loads((undisturbed(count, devices) / "result.json").read_text())
    assert result["machine"].startswith(f"{count * devices} x cpu")


# A run of one process, then one of two.
@pytest.mark.slow
def test_two_processes_resume_a_run_of_one(undisturbed, tmp_path):
    """Two processes resume a stopped run of one, at the same step and with the same batches."""
    step = stop(tmp_path / "run", tmp_path / "logs", 1, 1, to=0)
    assert 0 < step < STEPS
    resume(tmp_path / "run", tmp_path / "again", 2, 1, step=step)
    assert_same_training(tmp_path / "run", undisturbed(1, 1))


# Forks a process for each case at once, from one that has imported everything: [arguments, folder, log, has a defect].
FORKS = """
import json, os, sys
from adsq_jax import command_line, main
from adsq_jax.training import loop
def load_setup(*arguments, **options):
    raise KeyError("a defect")
pids = []
for arguments, folder, log, defect in json.load(sys.stdin):
    pids.append(os.fork())
    if not pids[-1]:
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        if defect:
            loop.load_setup = load_setup
        sys.argv[1:] = arguments
        try:
            command_line.run(main.main)
        finally:
            sys.stderr.flush()
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]))
"""


def run_all(cases, logs):
    """Run the command in two processes for each case, all at once.

    Args:
      cases: name -> (flags of both, more flags of process 1, folder of each, whether process 1 has a defect).
      logs: an empty folder.

    Returns:
      Name -> (exit statuses, outputs), by process.
    """
    processes = []
    with contextlib.ExitStack() as probes:
        for name, (both, of_1, folders, defect) in cases.items():
            probe = probes.enter_context(socket.create_server(("localhost", 0)))
            for number in range(2):
                connection = [f"--coordinator=localhost:{probe.getsockname()[1]}", "--processes=2", f"--process={number}"]
                arguments = [*both, *connection, *(of_1 if number else [])]
                processes.append([arguments, str(folders[number]), str(logs / f"{name}_{number}"), bool(defect and number)])
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as server:
        try:
            statuses = json.loads(server.communicate(json.dumps(processes), timeout=SECONDS)[0])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
    outputs = [Path(log).read_text() for *_, log, _ in processes]
    pairs = [slice(start, start + 2) for start in range(0, len(processes), 2)]
    return {name: (statuses[pair], outputs[pair]) for name, pair in zip(cases, pairs, strict=True)}


def small_config():
    """Return the config that the flags of two processes give."""
    given = command_line.Flags([*benchmark.SMALL, *flags(2, 1)], description="")
    given.config("config", "")
    return given.parse().config


# Ten processes, two of which wait ten seconds for a file to appear.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections
def test_an_error_in_one_process_ends_all(tmp_path):
    """No process is left waiting: all say what is wrong, in one line with status 2; a defect shows its traceback."""
    here, there, logs = (tmp_path / name for name in ("here", "there", "logs"))
    for folder in (here, there, logs):
        folder.mkdir()
    mock_data.pictures(here / "pictures", each=40)
    small = [*benchmark.SMALL, *flags(2, 1)]
    on_pictures = [f"--config={ROOT / 'configs' / 'folder.py'}", "--config.data.directory=pictures"]
    cases = {
        "config": ([*small, f"--workdir={tmp_path / 'config'}"], ["--config.seed=1"], (ROOT, ROOT), False),
        "missing": ([*on_pictures, f"--workdir={tmp_path / 'missing'}"], [], (here, there), False),
        "unshared": ([*small, "--workdir=run"], [], (here, there), False),  # as on hosts without a shared disk
        "in_use": ([*small, f"--workdir={tmp_path / 'in_use'}"], [], (ROOT, ROOT), False),
        "defect": ([*small, f"--workdir={tmp_path / 'defect'}"], [], (ROOT, ROOT), True),
    }
    with run_folder.claim(tmp_path / "in_use", json.loads(small_config().to_json())):
        ended = run_all(cases, logs)

    (of_0, of_1), (_, said) = ended.pop("defect")
    assert of_0 != 0
    assert of_1 == 1
    assert "Traceback" in said
    assert "KeyError: 'a defect'" in said
    for statuses, outputs in ended.values():
        assert statuses == [2, 2], outputs
    messages = {name: errors(outputs) for name, (_, outputs) in ended.items()}
    assert all("process 1 has another config than process 0" in message for message in messages["config"])
    assert all("pictures" in message for message in messages["missing"]), messages
    assert messages["missing"][0].startswith("error: process 1 says: ")
    assert all("--workdir=run is another folder" in message for message in messages["unshared"])
    assert all("is in use by another run" in message for message in messages["in_use"])
    assert not (tmp_path / "config").exists()
    assert not (tmp_path / "missing").exists()


def test_a_port_in_use(tmp_path):
    """If the coordinator's port is in use, there is one line and status 2."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        command = [*benchmark.SMALL, f"--workdir={tmp_path / 'run'}", f"--coordinator=localhost:{port}", "--processes=2"]
        (done,) = mock_data.commands("adsq_jax.main", [[*command, "--process=0"]])
    assert done.returncode == 2, done.stderr
    assert "give another port" in done.stderr.splitlines()[-1]


# Two processes connect and compile, a quarter of a minute on two cores.
@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_killed_it_ends_the_others(tmp_path, process):
    """During training, another run on its folder is refused and disturbs nothing; kill -9 of one process ends the other."""
    run = tmp_path / "run"
    many = [*flags(2, 1), "--config.train.rounds=3000"]
    with benchmark.started(2, run, *many, logs=tmp_path / "logs") as started:
        wait_for(lambda: lines(run) >= 1, started)
        (refused,) = mock_data.commands("adsq_jax.main", [[*benchmark.SMALL, *many, f"--workdir={run}"]])
        assert (refused.returncode, "is in use by another run" in refused.stderr) == (2, True), refused.stderr
        before = lines(run)
        wait_for(lambda: lines(run) > before, started)
        started.processes[process].kill()
        assert started.processes[1 - process].wait(120) != 0, started.outputs()
