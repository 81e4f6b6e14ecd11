"""What commands print: nothing that a terminal obeys, and no end of the work when a stream is closed or nobody reads."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest
from support.mock_data import ROOT

from adsq_jax.run import progress, tables, terminal
from adsq_jax.run.terminal import OutputError, Stream


def start(code, **options):
    """Run Python code in a process that imports nothing heavy."""
    command = [sys.executable, "-c", f"from adsq_jax.run import terminal\nimport os, sys\n{code}"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, **options)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b]0;title\x07", "a\\x1b[31mb\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("gnp\u202etac.png", "gnp\\u202etac.png"),
        (os.fsdecode(b"\xff\x9b.png"), "\\xff\\x9b.png"),
        ("over\rwritten\b", "over\\rwritten\\x08"),
        ("\r 50%", "\r 50%"),
        ("Zürich\t東京 🐈\n\n", "Zürich\t東京 🐈\n\n"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    """Control characters, C1, marks of direction and bytes that aren't UTF-8; lines, tabs and a bar's start stay."""
    below = io.StringIO()
    stream = Stream(below, clean=terminal.clean, lossy=False)
    print(text, end="", file=stream)
    stream.writelines([text])
    assert below.getvalue() == 2 * shown


def test_json_stays_json():
    """JSON is printed as it is: it escapes control characters itself."""
    content, below = {"id": "\x1b[2J\x9b\u202e\udcff", "ü": [0.5, None]}, io.StringIO()
    print(json.dumps(content, indent=2), file=Stream(below, clean=terminal.clean, lossy=False))
    assert below.getvalue() == json.dumps(content, indent=2) + "\n"


def test_a_cell_stays_in_its_line():
    """A name with an end of line forges no row of a table."""
    assert tables.align([("a\n b", "1"), ("c", "2")]) == "a\\n b  1\nc      2"


def test_bars_move_the_cursor(monkeypatch):
    """A progress bar gets through; what it describes is cleaned."""
    below = io.StringIO()
    monkeypatch.setattr(sys, "stderr", Stream(below, clean=terminal.clean, lossy=True))
    with progress.progress_bar(10, unit="images", description="\x1b[31mred") as bar:
        bar.delay, bar.mininterval = 0, 0
        bar.update(5)
        bar.refresh()
    assert "\r\\x1b[31mred:  50%" in below.getvalue()
    assert terminal.bar_stream() is terminal.bar_stream()  # tqdm compares streams


class Failing(io.StringIO):
    """A stream that can't be written."""

    def __init__(self, number):
        super().__init__()
        self._number = number

    def write(self, text):
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_messages_that_cannot_be_written_are_lost(number):
    """Whatever happens to standard error, the work goes on; what standard output can't take is an error, told from others."""
    print("lost", file=Stream(Failing(number), clean=terminal.clean, lossy=True))
    stream = Stream(Failing(number), clean=terminal.clean, lossy=False)
    with pytest.raises(OutputError) as caught:
        print("lost", file=stream)
    assert caught.value.errno == number
    stream.outlive_reader()
    if number == errno.ENOSPC:
        with pytest.raises(OutputError):
            print("lost", file=stream)
    else:
        print("lost", file=stream)


READER = """
terminal.clean_streams()
terminal.outlive_reader()
sys.stdin.readline()  # the reader has ended
for stream in (sys.stdout, sys.stderr):
    print("x" * 100_000, file=stream)
    print("y", file=terminal.bar_stream(), flush=True)
    os.write(stream.fileno(), b"by a library")  # goes nowhere, and isn't an error
with open("saved", "w") as file:
    file.write("to the end")
"""


def test_the_work_outlives_its_reader(tmp_path):
    """`command 2>&1 | head -1`: after the reader has ended, output goes nowhere, and the work to its end."""
    ours, theirs = os.pipe()
    command = [sys.executable, "-c", f"import os, sys\nfrom adsq_jax.run import terminal\n{READER}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, text=True
    ) as process:
        os.close(ours)
        os.close(theirs)
        process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "saved").read_text() == "to the end"


CLOSED = """
terminal.open_closed_streams()
with open("data", "w") as file:
    assert file.fileno() > 2, "a file got the descriptor of a standard stream"
    print("out")
    print("err", file=sys.stderr)
    os.write(2, b"by a library")
assert not os.path.getsize("data")
assert not sys.stdin.read()
os.rename("data", "done")
"""


def test_closed_streams(tmp_path):
    """`command <&- >&- 2>&-`: the null device takes their place, and no file that is opened later gets their descriptors."""
    script = f"import os, sys\nfrom adsq_jax.run import terminal\n{CLOSED}"
    shell = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", script]
    done = subprocess.run(shell, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == 0
    assert os.listdir(tmp_path) == ["done"]


def test_nothing_is_printed_after_the_last_line():
    """After `print_last`, whoever writes to standard error, also past Python, writes to the null device."""
    code = 'terminal.clean_streams(); print("first", file=sys.stderr); terminal.print_last("error: last\\a")\n'
    code += 'print("later", file=sys.stderr); os.write(2, b"past Python"); print("out")'
    done = start(code, stderr=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "first\nerror: last\\x07\n")


def test_the_last_line_is_whole():
    """A library that writes to standard error all the time, past Python, doesn't get into the line."""
    code = """
import threading
terminal.clean_streams()
threading.Thread(target=lambda: [os.write(2, b"x") for _ in range(100_000)], daemon=True).start()
terminal.print_last("error: last")
os._exit(2)
"""
    for _ in range(3):
        assert start(code, stderr=subprocess.PIPE).stderr.lstrip("x") == "error: last\n"
