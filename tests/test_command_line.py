"""The command line: bad input is one line and exit status 2, a defect keeps its traceback; and the command `adsq`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import adsq_jax
from adsq_jax import __main__ as adsq
from adsq_jax import command_line
from adsq_jax.errors import InputError
from adsq_jax.run import config_files, terminal

# pytest's settings make errors of warnings, and ml_collections loads config files by an old function
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "adsq_jax"
SCRIPT = """
from adsq_jax import command_line
from adsq_jax.errors import InputError


def main(arguments):
    flags = command_line.Flags(arguments, description="Divide 100.")
    flags.config("config", "A config file.")
    config = flags.parse().config
    bits = config.bits if config else 0
    if bits == 13:
        raise InputError("thirteen is\\n  refused")
    print(100 // (bits - 7))


if __name__ == "__main__":
    command_line.run(main)
"""
CONFIG = """
from ml_collections import ConfigDict
from adsq_jax.errors import InputError


def get_config(argument=""):
    if argument not in ("", "12"):
        raise InputError(f"config argument {argument!r} is unknown: give 12")
    return ConfigDict({"bits": int(argument or 24), "rate": 0.5, "data": {"name": "digits"}, "more": {}})
"""


def start(arguments, folder):
    """Run Python in the repository, with DIR in its arguments replaced by a folder; return status, output and errors."""
    command = [sys.executable, *(argument.replace("DIR", str(folder)) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a small command, and returns its exit status, standard output and standard error."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.py").write_text(CONFIG)

    def run_(*arguments):
        return start([str(tmp_path / "script.py"), *arguments], tmp_path)

    return run_


@pytest.fixture
def call(tmp_path):
    """Return a function that calls the small command in this process."""
    (tmp_path / "config.py").write_text(CONFIG)
    command: dict = {"__name__": "script"}
    exec(SCRIPT, command)
    return lambda *arguments: command["main"]([argument.replace("DIR", str(tmp_path)) for argument in arguments])


@pytest.fixture
def refusal(call):
    """Return a function that calls the small command in this process, and returns the text of its InputError."""

    def refusal_(*arguments):
        with pytest.raises(InputError) as caught:
            call(*arguments)
        return str(caught.value)

    return refusal_


def assert_one_line(outcome, *words):
    """Check that a command ended with one error line that has these words, and with status 2."""
    status, out, err = outcome
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert (status, out) == (2, "")
    for word in words:
        assert word in err


IGNORES = """
import signal
from adsq_jax import command_line
signal.signal(signal.SIGINT, signal.SIG_IGN)
command_line.run(lambda arguments: (signal.raise_signal(signal.SIGINT), print("goes on")))
"""


def test_an_ignored_signal_stays_ignored(tmp_path):
    """A shell starts what runs in the background so that Ctrl-C doesn't end it."""
    assert start(["-c", IGNORES], tmp_path) == (0, "goes on\n", "")


def test_good_input(run, call, capsys):
    """Flags, a config's argument and an override reach the command, which ends with status 0 and prints nothing else."""
    call("--config=DIR/config.py")
    call("--config=DIR/config.py:12")
    assert capsys.readouterr() == (f"{100 // 17}\n20\n", "")
    assert run("--config", "DIR/config.py", "--config.bits=8", "--config.data.name=x") == (0, "100\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--confg=x"], ["--confg is not a flag (did you mean '--config'?)", "--help"]),
        (["--wrkdir"], ["--wrkdir is not a flag; fix: --help"]),
        (["--config.bits=12"], ["--config.bits changes a key of --config=NAME; fix: give the config, too"]),
        (["stray"], ["'stray' is not a flag", "--name=value"]),
        (["--config=DIR/config.py", "bits=12"], ["'bits=12' is not a flag"]),
        (["--config=DIR/none.py"], ["DIR/none.py"]),
        (["--config=DIR/none.py", "--config.bits=12"], ["DIR/none.py"]),
        (["--config=DIR"], ["no config ", "DIR'; fix: "]),
        (["--config=DIR/config.py:13"], ["config argument '13' is unknown: give 12"]),
        (["--config=DIR/config.py", "--config.bit=12"], ["config has no key 'bit' (did you mean 'bits'?);"]),
        (["--config=DIR/config.py", "--config.data.nam=x"], ["config has no key 'data.nam' (did you mean 'data.name'?);"]),
        (["--config=DIR/config.py", "--config.date.name=x"], ["no key 'date.name' (did you mean 'data.name'?); fix: --help"]),
        (
            ["--config", "DIR/config.py", "--config.data.nam", "x"],
            ["config has no key 'data.nam' (did you mean 'data.name'?);"],
        ),
        (["--config=DIR/config.py", "--noconfig.data.zzz"], ["config has no key 'data.zzz'; fix: --help"]),
        (["--config=DIR/config.py", "--config.name=x"], ["config has no key 'name' (did you mean 'data.name'?);"]),
        (["--config=DIR/config.py", "--config.rate.high=1"], ["config has no key 'rate.high' (did you mean 'rate'?);"]),
        (["--config=DIR/config.py", "--config.more.x=1"], ["no key 'more.x' (give --config.more=\"{'x': VALUE}\")"]),
        (["--config=DIR/config.py", "--config.bits=many"], ["bits", "many"]),
        (["--config=DIR/config.py", "--config.bits=1.5"], ["bits", "1.5"]),
        (["--config=DIR/config.py", "--config.rate=fast"], ["rate", "fast"]),
        (["--config=DIR/config.py", "--config.bits="], ["bits"]),
        (["--config=DIR/config.py", "--config.bits"], ["bits"]),
        (["--config=DIR/config.py", "--config.data=x"], ["data"]),
        (["--config"], ["config"]),
        (["--config="], ["no config ''"]),
        (["--config=digits.py"], ["no config 'digits.py' (did you mean 'digits'?); fix: give one of cifar10, "]),
        (["--config=configs/digits"], ["no config 'configs/digits' (did you mean 'digits'?)"]),
        (["--config=configs/digts.py"], ["no config 'configs/digts.py' (did you mean 'digits'?)"]),
        (["--config", "DIR/digits"], ["DIR/digits'; fix: "]),
    ],
)
def test_bad_input(refusal, tmp_path, arguments, words):
    """Each mistake on the command line is an InputError of one line that names it."""
    text = refusal(*arguments)
    assert "\n" not in text
    for word in words:
        assert word.replace("DIR", str(tmp_path)) in text


@pytest.mark.parametrize("given", ["--config=digits", "--config digits", "--config=configs/digits.py", "-config=digits"])
def test_a_config_of_this_package_is_found_by_its_name(tmp_path, monkeypatch, given):
    """In any folder, with its argument and overrides; a file of one's own that has its path comes first."""
    monkeypatch.chdir(tmp_path)

    def bits(argument="", *more):
        flags = command_line.Flags([*f"{given}{argument}".split(), *more], description=None)
        flags.config("config", "")
        return flags.parse().config.bits

    assert (bits(), bits(":bits=48"), bits(":bits=48", "--config.bits=12")) == (24, 48, 12)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.py").write_text(CONFIG.replace("24", "77"))
    assert bits() == (77 if "configs/" in given else 24)


def test_other_values_of_a_config_that_is_named():
    """What follows the colon is kept or replaced, and other keys are flags, as for a file."""
    arguments = ["--config=digits:method=dpsh,bits=24", "--workdir=runs"]
    changed = command_line.with_values(arguments, {"bits": "8", "seed": "1"})
    assert changed == ["--config=digits:method=dpsh,bits=8", "--workdir=runs", "--config.seed=1"]


def test_the_names_are_those_of_configs():
    """Every file of configs/ has its name, of the package as it is installed."""
    assert config_files.names() == sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))
    assert all(config_files.find(name) == f"{PACKAGE}/configs/{name}.py" for name in config_files.names())


def test_an_error_is_one_line(run):
    """A command prints an InputError as one line that begins with `error:`, and ends with status 2."""
    assert_one_line(run("--config=DIR/config.py", "--config.bits=13"), "thirteen is refused")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def get_config(:\n    return 1\n", ["SyntaxError", "config.py"]),
        ("import no_such_module_here\n", ["config.py, line 1", "no_such_module_here"]),
        ("def get_config(argument=''):\n    return {}['bits']\n", ["config.py, line 2", "KeyError", "bits"]),
        ("def get_config(argument=''):\n    raise ValueError('first\\nsecond')\n", ["second"]),
        ("def configuration():\n    return None\n", ["get_config"]),
        ("def get_config():\n    return None\n", ["config"]),
        ("import sys\nsys.exit(0)\n", ["config.py, line 2", "SystemExit"]),
    ],
)
def test_bad_config_file(refusal, tmp_path, content, words):
    """A config file that isn't Python, or that fails, is an InputError of one line with the error."""
    (tmp_path / "config.py").write_text(content)
    text = refusal("--config=DIR/config.py:12")
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_defect_keeps_its_traceback(run):
    """Any other exception is a defect: it keeps its traceback, and the status is 1."""
    status, out, err = run("--config=DIR/config.py", "--config.bits=7")
    assert (status, out) == (1, "")
    assert "Traceback" in err
    assert "ZeroDivisionError" in err


def test_help(call, capsys):
    """--help prints the command's description and its flags, and the status is 0."""
    with pytest.raises(SystemExit) as caught:
        call("--help")
    out, err = capsys.readouterr()
    assert (caught.value.code, err) == (0, "")
    assert out.startswith("Divide 100.\n")
    assert "  --config\n      A config file.\n" in out


def test_help_of_keys(tmp_path, capsys):
    """After the flags of `train` stand all keys with their defaults, or with the values of the file that is given."""
    (tmp_path / "own.py").write_text(
        "from adsq_jax import config\n\ndef get_config(argument=''):\n    return config.from_argument(argument)\n"
    )
    outs = []
    for given in ([], [f"--config={tmp_path}/own.py:bits=48,method=dpsh", "--config.train.rounds=3"]):
        with pytest.raises(SystemExit) as caught:
            adsq.main(["train", "--help", *given])
        assert caught.value.code == 0
        outs.append(capsys.readouterr().out.partition("Config keys")[2])
    assert "\n  bits              24         length of a hash code" in outs[0]
    assert "\n  train.rounds                          10   a round" in outs[0]
    assert "\n  bits              48         length of a hash code" in outs[1]
    assert "\n  train.rounds                          3    a round" in outs[1]
    assert "\n  baseline.eta " in outs[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir=DIR/run"], ["--config=NAME", "--config=FILE.py", "--workdir=DIR"]),
        (
            ["--config=digts", "--workdir=DIR/run"],
            ["no config 'digts' (did you mean 'digits'?)", "cifar10, ", "FILE.py"],
        ),
        (["--config=digits:bits=many", "--workdir=DIR/run"], ["'bits=many': expected int"]),
        (["--config=digits", "--sweep=bits=8;zzz=1", "--workdir=DIR/run"], ["zzz"]),
        (["--config=configs/digits.py:bits=many", "--workdir=DIR/run"], ["'bits=many': expected int"]),
        (["--config=configs/digits.py", "--config.bits=300", "--workdir=DIR/run"], ["config.bits=300: expected 1 to 256"]),
        (
            ["--config=configs/digits.py", "--config.optim.learning_rate=nan", "--workdir=DIR/run"],
            ["config.optim.learning_rate=nan"],
        ),
    ],
)
def test_train(tmp_path, arguments, words):
    """Training too refuses bad flags and values out of range in one line, and leaves no folder."""
    with pytest.raises(InputError) as caught:
        adsq.main(["train", *(argument.replace("DIR", str(tmp_path)) for argument in arguments)])
    assert all(word in str(caught.value) for word in words)
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


def main(arguments):
    print("out")
    {call}
    time.sleep(20)
    print("not ended")


command_line.run(main)
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("call", ["os.kill(os.getpid(), signal.{name})", "_xla_gc_callback()"], ids=["plain", "callback"])
def test_a_signal_ends_it(tmp_path, name, status, call):
    """A signal ends a command with one line, even during JAX's garbage collection callback, which swallows exceptions."""
    (tmp_path / "script.py").write_text(STOPPED.format(name=name, call=call.format(name=name)))
    assert start([str(tmp_path / "script.py")], tmp_path) == (status, "out\n", "stopped\n")


@pytest.mark.parametrize(("target", "status", "words"), [("/dev/full", 2, "can't be written (No space left"), ("pipe", 1, "")])
def test_output_that_cannot_be_written(tmp_path, target, status, words):
    """A full disk is one error line; if the reader of a pipe has ended, there is none."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("print(100", 'print("x" * 100_000 + str(100').replace("- 7))", "- 7)))"))
    (tmp_path / "config.py").write_text(CONFIG)
    read, write = os.pipe()
    os.close(read)
    with open(target, "w") if target != "pipe" else os.fdopen(write, "w") as out:
        command = [sys.executable, tmp_path / "script.py", f"--config={tmp_path}/config.py"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=100, env=environment)
    assert (done.returncode, words in done.stderr, len(done.stderr.splitlines())) == (status, True, int(bool(words)))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(36, "File name too long", "/a/b"), "/a/b can't be used (File name too long); fix: give a shorter path"),
        (
            FileNotFoundError(2, "No such file or directory", b"/a/\xff"),
            "/a/\\xff can't be used (No such file or directory); fix: put",
        ),
        (OSError(24, "Too many open files"), "Too many open files; fix: raise the limit of open files (ulimit -n)"),
        (
            FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"),
            "No usable temporary directory found in ['/tmp']; fix: make room in one of them, or name another",
        ),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused; fix: "),
        (MemoryError(), "too little memory (MemoryError); fix: "),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "too little memory (RESOURCE_EXHAUSTED"),
        (RuntimeError("Unable to initialize backend 'x': none"), "JAX can't compute here (Unable to initialize backend 'x'"),
        (RuntimeError("can't start new thread"), "too little memory (can't start new thread); fix: "),
        (ImportError("x.so: failed to map segment from shared object"), "too little memory (x.so: failed to map"),
        (InputError("what \x1b[2J\x9b is\nthis"), "what \\x1b[2J\\x9b is this"),
    ],
)
def test_what_the_machine_refuses_is_one_line(capsys, monkeypatch, error, line):
    """An error of the system, whatever its number, is one line that says what to do, with status 2; so is a lack of memory."""
    monkeypatch.setattr(sys, "stderr", terminal.Stream(sys.stderr, clean=terminal.clean, lossy=True))
    with pytest.raises(SystemExit) as caught:
        command_line._end(error)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {line}")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "error", [OSError(9, "Bad file descriptor"), OSError("without a number"), ImportError("cannot import name")]
)
def test_what_only_a_mistake_in_the_program_causes_keeps_its_traceback(error):
    """It is raised again."""
    with pytest.raises(type(error)) as caught:
        command_line._end(error)
    assert caught.value is error


CLOSED = """
from adsq_jax import command_line
command_line.run(lambda arguments: print("\\x1b[31m" + "x" * 100_000))
"""


def test_closed_streams(tmp_path):
    """`>&- 2>&-`: the command works to its end; what it prints is cleaned for a terminal."""
    command = ["bash", "-c", '"$@"; "$@" >&- 2>&-; echo $?', "bash", sys.executable, "-c", CLOSED]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.stdout[:6], done.stdout[-4:], done.stderr) == ("\\x1b[3", "x\n0\n", "")


@pytest.mark.parametrize("command", adsq.COMMANDS)
def test_help_of_every_command(capsys, command):
    """All commands can be imported in one process, and each shows its own description and flags."""
    with pytest.raises(SystemExit) as caught:
        adsq.main([command, "--help"])
    out, err = capsys.readouterr()
    assert (caught.value.code, err) == (0, "")
    assert out.split("\n")[0].endswith((".", ":", ","))
    assert "\n  --help\n      Show this help and exit." in out
    assert ";     repeat" not in out  # what absl adds to flags that may be given several times


def test_adsq(tmp_path, capsys):
    """Without a command `adsq` lists all commands; an unknown one is refused in one line, with the nearest name."""
    adsq.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == list(adsq.COMMANDS)
    assert_one_line(start(["-m", "adsq_jax", "trian", "--help"], tmp_path), "adsq trian: ", "(did you mean 'train'?)")


def test_version(capsys):
    """One line names the versions of the package, Python and JAX, and the system."""
    adsq.main(["--version"])
    found = re.fullmatch(r"adsq_jax (\S+), Python (\S+), jax (\S+), (\S+) (\S+)\n", capsys.readouterr().out)
    assert found.groups()[:3] == (adsq_jax.__version__, sys.version.split()[0], jax.__version__)
    assert found[5] == os.uname().machine


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["-m", "adsq_jax", "--help"], {"absl"}),
        (["-m", "adsq_jax", "--version"], {"absl"}),
        (["-c", "import adsq_jax"], set()),
        (["-c", "import adsq_jax.data, adsq_jax.export"], {"numpy"}),
    ],
)
def test_what_is_quick_imports_little(tmp_path, arguments, allowed):
    """Help, version and `import adsq_jax` import neither JAX nor any other package that takes long."""
    status, _, err = start(["-X", "importtime", *arguments], tmp_path)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in err.splitlines() if line.startswith("import time:")}
    heavy = {"absl", "etils", "flax", "jax", "jaxlib", "ml_collections", "numpy", "orbax", "PIL", "scipy", "tqdm"}
    assert (status, imported & heavy) == (0, allowed)
    assert "adsq_jax" in imported


# Runs `adsq` as the console script does: the folder of the script comes first in Python's path, not the current one.
ADSQ = """
import sys
from adsq_jax import __main__ as adsq
sys.argv[0] = "adsq"
adsq.run()
"""


@pytest.mark.parametrize(
    ("arguments", "status", "is_run"),
    [
        (["evaluate", f"--workdir={ROOT}/tests/formats/run_1", "--out=figures.json"], 0, set()),
        (["train", "--config=digits:bits=12", "--workdir=digits.py/no"], 2, set()),
        (["data", "--config=digits:bits=0,method=mine", "--out=out"], 2, {"mine"}),
        (["data", "--config=own.py", "--out=out"], 2, {"own", "mine"}),
    ],
)
def test_only_what_is_named_runs_from_the_current_folder(tmp_path, arguments, status, is_run):
    """Neither a package's namesake nor what libraries look for, as jax_plugins, is run there; a named method or config is."""
    script, folder = tmp_path / "bin" / "adsq", tmp_path / "here"
    script.parent.mkdir()
    script.write_text(ADSQ)
    places = {"jax": "jax", "numpy": "numpy", "digits": "digits", "configs/digits": "digits", "adsq_jax/__init__": "adsq_jax"}
    places |= {"jax_plugins/any/__init__": "jax_plugins", "own": "own", "mine": "mine"}
    for place, name in places.items():
        path = folder / f"{place}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        more = {"own": "import mine\nget_config = None\n", "mine": "loss = dict\n"}.get(name, "")
        path.write_text(f"open({str(tmp_path / name)!r} + '.ran', 'w').close()\n{more}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, {path.stem for path in tmp_path.glob("*.ran")}) == (status, is_run), done.stderr
    assert status == 0 or (done.stderr.startswith("error: ") and done.stderr.count("\n") == 1)


# Trains twice, which traces everything twice.
def test_commands_in_one_process(tmp_path, capsys, monkeypatch):
    """After JAX has started a process can train, evaluate and train again, from any folder; a wrong flag is an InputError."""
    monkeypatch.chdir(tmp_path)
    small = ["--config.model.width=4", "--config.train.rounds=1", "--config.train.epochs_per_round=1"]
    for run in ("one", "two"):
        adsq.main(["train", "--config=digits:bits=12,method=dpsh", *small, f"--workdir={run}"])
        adsq.main(["evaluate", f"--workdir={run}"])
    assert "mAP@all ff (the result)" in capsys.readouterr().out
    one, two = ((tmp_path / run / "codes" / "query_f.npy").read_bytes() for run in ("one", "two"))
    assert one == two
    with pytest.raises(InputError, match="wrokdir"):
        adsq.main(["evaluate", "--wrokdir=one"])
