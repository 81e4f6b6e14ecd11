"""The command line: whatever is wrong with it is one line and exit status 2; a defect keeps its traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
from ml_collections import config_flags
from adsq_jax import command_line
from adsq_jax.errors import InputError

CONFIG = config_flags.DEFINE_config_file("config")


def main():
    bits = CONFIG.value.bits if CONFIG.value else 0
    if bits == 13:
        raise InputError("thirteen is\\n  refused")
    print(100 // (bits - 7))


command_line.run(main)
"""
CONFIG = """
from ml_collections import ConfigDict
from adsq_jax.errors import InputError


def get_config(argument=""):
    if argument not in ("", "12"):
        raise InputError(f"config argument {argument!r} is unknown: give 12")
    return ConfigDict({"bits": int(argument or 24), "rate": 0.5, "data": {"name": "digits"}})
"""


def start(arguments, folder):
    """Runs Python in the repository; DIR in an argument stands for a folder."""
    command = [sys.executable, *(argument.replace("DIR", str(folder)) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run(tmp_path):
    """Runs a small entry point; gives exit status, standard output and standard error."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.py").write_text(CONFIG)

    def run_(*arguments):
        return start([str(tmp_path / "script.py"), *arguments], tmp_path)

    return run_


def assert_one_line(found, *words):
    status, out, err = found
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert (status, out) == (2, "")
    for word in words:
        assert word in err


def test_good_input(run):
    """Flags, a config argument and an override reach the entry point, which ends with status 0 and says nothing else."""
    assert run("--config=DIR/config.py") == (0, f"{100 // 17}\n", "")
    assert run("--config=DIR/config.py:12") == (0, "20\n", "")
    assert run("--config", "DIR/config.py", "--config.bits=8", "--config.data.name=x") == (0, "100\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--confg=x"], ["confg", "--help"]),
        (["stray"], ["'stray' is not a flag", "--name=value"]),
        (["--config=DIR/config.py", "bits=12"], ["'bits=12' is not a flag"]),
        (["--config=DIR/none.py"], ["DIR/none.py"]),
        (["--config=DIR/none.py", "--config.bits=12"], ["DIR/none.py"]),
        (["--config=DIR"], ["DIR"]),
        (["--config=DIR/config.py:13"], ["config argument '13' is unknown: give 12"]),
        (["--config=DIR/config.py", "--config.bit=12"], ["config has no key bit:"]),
        (["--config=DIR/config.py", "--config.data.nam=x"], ["config has no key nam:"]),
        (["--config=DIR/config.py", "--config.date.name=x"], ["config has no key date:"]),
        (["--config=DIR/config.py", "--config.bits=many"], ["bits", "many"]),
        (["--config=DIR/config.py", "--config.bits=1.5"], ["bits", "1.5"]),
        (["--config=DIR/config.py", "--config.rate=fast"], ["rate", "fast"]),
        (["--config=DIR/config.py", "--config.bits="], ["bits"]),
        (["--config=DIR/config.py", "--config.bits"], ["bits"]),
        (["--config=DIR/config.py", "--config.data=x"], ["data"]),
        (["--config"], ["config"]),
        (["--config=DIR/config.py", "--config.bits=13"], ["thirteen is refused"]),
    ],
)
def test_bad_input(run, tmp_path, arguments, words):
    """Each mistake on the command line is one line that begins `error:`, names what is wrong, and ends with status 2."""
    assert_one_line(run(*arguments), *(word.replace("DIR", str(tmp_path)) for word in words))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def get_config(:\n    return 1\n", ["SyntaxError", "config.py"]),
        ("import no_such_module_here\n", ["config.py, line 1", "no_such_module_here"]),
        ("def get_config(argument=''):\n    return {}['bits']\n", ["config.py, line 2", "KeyError", "bits"]),
        ("def get_config(argument=''):\n    raise ValueError('first\\nsecond')\n", ["second"]),
        ("def configuration():\n    return None\n", ["get_config"]),
        ("def get_config():\n    return None\n", ["config"]),
    ],
)
def test_bad_config_file(run, tmp_path, content, words):
    """A config file that isn't Python, or fails when it is run, is one line with what went wrong."""
    (tmp_path / "config.py").write_text(content)
    assert_one_line(run("--config=DIR/config.py:12"), *words)


def test_defect_keeps_its_traceback(run):
    """Any other exception is a defect: its traceback is shown, and the status is 1."""
    status, out, err = run("--config=DIR/config.py", "--config.bits=7")
    assert (status, out) == (1, "")
    assert "Traceback" in err
    assert "ZeroDivisionError" in err


def test_help(run):
    """--help is no error of ours: it lists the flags."""
    status, out, err = run("--help")
    assert "--config" in out
    assert "error" not in err
    assert status in (0, 1)  # absl's own


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir=DIR/run"], ["--config=FILE.py", "--workdir=DIR"]),
        (["--config=configs/digits.py:bits=many", "--workdir=DIR/run"], ["'bits=many' wants int"]),
        (["--config=configs/digits.py", "--config.bits=300", "--workdir=DIR/run"], ["config.bits=300 must be 1 to 256"]),
        (
            ["--config=configs/digits.py", "--config.optim.learning_rate=nan", "--workdir=DIR/run"],
            ["config.optim.learning_rate=nan"],
        ),
    ],
)
def test_main(tmp_path, arguments, words):
    """The real entry point says the same of its own flags and of values out of range, and leaves no folder behind."""
    assert_one_line(start(["-m", "adsq_jax.main", *arguments], tmp_path), *words)
    assert list(tmp_path.iterdir()) == []


STOPPED = """
import os, signal, sys, time
from adsq_jax import command_line


def _xla_gc_callback():
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.05)
    except BaseException as error:
        print("lost:", error)


def main():
    print("out")
    {call}
    time.sleep(20)
    print("went on")


command_line.run(main)
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("call", ["os.kill(os.getpid(), signal.{name})", "_xla_gc_callback()"], ids=["plain", "callback"])
def test_a_signal_ends_it(tmp_path, name, status, call):
    """In one line, and also where it comes in a callback of JAX's garbage collection, out of which no exception gets."""
    (tmp_path / "script.py").write_text(STOPPED.format(name=name, call=call.format(name=name)))
    assert start([str(tmp_path / "script.py")], tmp_path) == (status, "out\n", "stopped\n")


@pytest.mark.parametrize(("target", "status", "said"), [("/dev/full", 2, "can't be written (No space left"), ("pipe", 1, "")])
def test_output_that_nobody_takes(tmp_path, target, status, said):
    """A full disk is told in one line; a reader that has gone in none."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("print(100", 'print("x" * 100_000 + str(100').replace("- 7))", "- 7)))"))
    (tmp_path / "config.py").write_text(CONFIG)
    read, write = os.pipe()
    os.close(read)
    with open(target, "w") if target != "pipe" else os.fdopen(write, "w") as out:
        command = [sys.executable, tmp_path / "script.py", f"--config={tmp_path}/config.py"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=100, env=environment)
    assert (done.returncode, said in done.stderr, len(done.stderr.splitlines())) == (status, True, int(bool(said)))
