"""What happens before the imports of a command: Ctrl-C, limits, closed streams and the locale."""

import os
import signal
import subprocess
import sys

import pytest
from support.mock_data import ROOT

from adsq_jax.run import startup

INTERRUPTED = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n"


def start(folder, *, numpy="raise SystemExit(3)\n", module="adsq_jax.main", limit="", environment=()):
    """Start a command that finds another NumPy, so that it ends where its imports begin; return status, output and errors."""
    (folder / "numpy.py").write_text(numpy)
    search = os.pathsep.join((str(folder), str(ROOT)))
    command = ["bash", "-c", f'{limit} exec "$@"', "bash", sys.executable, "-m", *module.split()]
    everything = {**os.environ, "PYTHONPATH": search, **dict(environment)}
    done = subprocess.run(command, cwd=folder, env=everything, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("module", ["adsq_jax.main", "adsq_jax.encode", "adsq_jax train"])
def test_ctrl_c_during_the_imports(tmp_path, module):
    """One word and status 130, and no traceback."""
    assert start(tmp_path, numpy=INTERRUPTED, module=module) == (130, "", "stopped\n")


def test_ctrl_c_that_is_ignored(tmp_path):
    """A shell starts what runs in the background so that Ctrl-C doesn't end it, also during the imports."""
    numpy = INTERRUPTED.replace("time.sleep(20)", "raise SystemExit(3)")
    assert start(tmp_path, numpy=numpy, limit="trap '' INT;")[0] == 3


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("ulimit -n 12;", "expected a limit of at least 64 open files, got 12; fix: ulimit -n 64"),
        ("ulimit -v 1000000;", "expected an address space of at least 1,536 MiB, got 976 MiB; fix: ulimit -v unlimited"),
    ],
)
def test_limits_that_are_too_low(tmp_path, limit, said):
    """One line and status 2 before the work, where a library would end the process without one."""
    status, out, errors = start(tmp_path, limit=limit)
    assert (status, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"error: {said}")
    assert "; fix: ulimit" in errors
    assert start(tmp_path)[0] == 3


def test_an_abort_for_want_of_memory(tmp_path):
    """Where the address space is limited and a library aborts, the last line says why; any other end adds no line."""
    limit = "ulimit -c 0; ulimit -v 1700000;"
    status, _, errors = start(tmp_path, numpy="import os; os.write(2, b'bad_alloc\\n'); os.abort()", limit=limit)
    assert (status, errors.count("\n")) == (-signal.SIGABRT, 2)
    assert errors.startswith("bad_alloc\nerror: too little memory for a library, ")
    for end in ("os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit(3)"):
        assert start(tmp_path, numpy=f"import os, signal; {end}", limit=limit)[2] == ""
    assert "error" not in start(tmp_path, numpy="import os; os.abort()", limit="ulimit -c 0;")[2]


def test_closed_streams(tmp_path):
    """They are open before the imports, of which one may open a file."""
    numpy = 'import os, sys\nassert os.fstat(1) and os.fstat(2)\nprint("x"); sys.stderr.write("y")\nraise SystemExit(3)\n'
    assert start(tmp_path, numpy=numpy, limit="exec >&- 2>&-;") == (3, "", "")


def test_names_are_utf_8_in_any_locale(tmp_path):
    """With an ASCII locale, names are UTF-8, and what is printed is ASCII."""
    numpy = "import os, sys\nprint(ascii(os.fsdecode(b'Z\\xc3\\xbcrich')), 'Z\\xfcrich')\nraise SystemExit(3)\n"
    status, out, errors = start(tmp_path, numpy=numpy, environment={"LC_ALL": "C", "PYTHONUTF8": "0"}.items())
    assert (status, out, errors) == (3, "'Z\\xfcrich' Z\\xfcrich\n", "")


@pytest.mark.parametrize(
    ("program", "original", "expected"),
    [
        ("-m", ["python", "-m", "adsq_jax.main"], True),
        ("-m", ["python", "-W", "ignore", "-madsq_jax"], True),
        ("/usr/bin/adsq", ["python", "/usr/bin/adsq", "train"], True),
        ("-m", ["python", "-m", "pytest"], False),
        ("/usr/bin/adsq", ["python", "-c", "from multiprocessing.spawn import spawn_main"], False),
        ("mine.py", ["python", "mine.py", "-m", "adsq_jax"], False),
        ("", ["python"], False),
    ],
)
def test_what_is_a_command(monkeypatch, program, original, expected):
    """Neither a worker of a command nor a program that imports the package is one."""
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", original)
    assert startup.is_command() == expected


def test_importing_the_package_changes_nothing():
    """Whoever imports it keeps their handler of Ctrl-C."""
    code = "import signal, adsq_jax; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{signal.getsignal(signal.SIGINT) is not signal.SIG_IGN}\n"
