"""The log of a run: JSON lines that survive a resume, TensorBoard events, plain lines, and a bar on a terminal."""

import io
import json
import os
import pty
import re
import struct
import termios
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial

import pytest
from tensorboardX.proto import event_pb2

from adsq_jax import storage
from adsq_jax.run import metrics_log
from adsq_jax.run.metrics_log import CallbackLog, MetricsLog


def lines_of(directory):
    return [json.loads(line) for line in storage.read(directory / "metrics.jsonl").splitlines()]


def events_of(directory):
    """Read the events of TFRecord files: each record is length, its checksum, content, its checksum."""
    events = []
    for path in sorted((directory / "tensorboard").rglob("events.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return events


def scalars_of(directory):
    return [(v.tag, event.step, v.simple_value) for event in events_of(directory) for v in event.summary.value]


def record_run(directory, *, start, steps, net="f"):
    """Record img_net metrics of some steps."""
    log = MetricsLog(directory, start=start)
    for step in steps:
        log.record("img_net", step, {"likelihood": step / 2, "total": 1.0}, labels={"net": net})
    log.close()


@pytest.fixture
def clock(monkeypatch):
    """Return a clock, a list of one number, that stands still until it is set."""
    now = [1000.0]
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now[0])
    return now


def _read_all(file):
    content = b""
    with suppress(BlockingIOError):
        while True:
            content += os.read(file, 4096)
    return content.decode()


@contextmanager
def terminal():
    """Redirect standard error to a pseudo-terminal of 160 columns, and return a function that reads its output."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 160))
    os.set_blocking(master, False)
    with os.fdopen(slave, "w") as stream, redirect_stderr(stream):
        yield partial(_read_all, master)
    os.close(master)


def test_lines_are_json(tmp_path):
    """Each line is an object with phase, step, labels and values, in order, and is on disk at once."""
    log = MetricsLog(tmp_path, start=0)
    log.record("label_net", 20, {"regression": 0.25}, labels={})
    log.record("img_net", 3, {"likelihood": 0.5, "total": 1e-9}, labels={"net": "g"})
    assert lines_of(tmp_path) == [
        {"phase": "label_net", "step": 20, "regression": 0.25},
        {"phase": "img_net", "step": 3, "net": "g", "likelihood": 0.5, "total": 1e-9},
    ]
    log.close()


def test_resume_drops_lines_that_are_repeated(tmp_path):
    """Lines of steps after the start go; earlier ones, and all of LabelNet's, stay byte for byte."""
    path = tmp_path / "metrics.jsonl"
    old = [
        '{"phase": "label_net", "step": 300, "regression": 0.1}\n',
        '{"phase":"img_net",   "step": 20, "net": "f", "total": 1.50}\n',
        '{"phase": "codes", "step": 30, "sweeps": 2}\n',
        '{"phase": "img_net", "step": 31, "net": "f", "total": 1.0}\n',
        '{"phase": "codes", "step": 60, "sweeps": 2}\n',
    ]
    path.write_text("".join(old))
    record_run(tmp_path, start=30, steps=[40])
    text = path.read_text()
    assert text.startswith("".join(old[:3]))
    assert [entry["step"] for entry in lines_of(tmp_path)] == [300, 20, 30, 40]


@pytest.mark.parametrize(
    "torn", ['{"phase": "img_net", "st', "{", '{"phase": "img_net", "step": 3, "net": "f", "total": 1.0}', "[1]\n", "{}\n"]
)
def test_torn_last_line(tmp_path, torn):
    """A last line that a kill cut short, if only by its line end, or that isn't of this log, is dropped."""
    record_run(tmp_path, start=0, steps=[1, 2])
    intact = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(intact + torn)
    record_run(tmp_path, start=5, steps=[6])
    assert (tmp_path / "metrics.jsonl").read_text().startswith(intact)
    assert [entry["step"] for entry in lines_of(tmp_path)] == [1, 2, 6]


def test_begin_again_without_a_checkpoint(tmp_path):
    """A run that starts again, since it was killed before its first checkpoint, drops all lines."""
    record_run(tmp_path, start=None, steps=[1])
    (tmp_path / "metrics.jsonl").write_text('{"phase": "label_net", "step": 20, "regression": 0.1}\n')
    record_run(tmp_path, start=None, steps=[1])
    assert [entry["phase"] for entry in lines_of(tmp_path)] == ["img_net"]


def test_resume_at_the_first_checkpoint(tmp_path):
    """The checkpoint of step 0, after LabelNet, keeps LabelNet's lines and those of the first codes."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"phase": "label_net", "step": 20, "a": 0.1}\n{"phase": "codes", "step": 0, "sweeps": 1}\n')
    record_run(tmp_path, start=0, steps=[1])
    assert [entry["phase"] for entry in lines_of(tmp_path)] == ["label_net", "codes", "img_net"]


def test_tensorboard(tmp_path):
    """Each value is an event whose tag has phase, labels and name, with its step."""
    log = MetricsLog(tmp_path, start=0)
    log.record("label_net", 20, {"regression": 0.25}, labels={})
    log.record("img_net", 3, {"likelihood": 0.5, "total": 2}, labels={"net": "g"})
    log.close()
    assert sorted(scalars_of(tmp_path)) == [
        ("img_net/g/likelihood", 3, 0.5),
        ("img_net/g/total", 3, 2.0),
        ("label_net/regression", 20, 0.25),
    ]


@pytest.mark.parametrize(("start", "purged"), [(None, [0, 0]), (0, [1]), (30, [31])])
def test_tensorboard_on_resume(tmp_path, start, purged):
    """A resumed run tells TensorBoard to hide the steps after its start, but not LabelNet's; a new run hides everything."""
    record_run(tmp_path, start=start, steps=[40])
    events = events_of(tmp_path)
    assert [event.step for event in events if event.session_log.status == event_pb2.SessionLog.START] == purged


def test_plain_lines(tmp_path, capsys, clock):
    """Without a terminal there is a plain line every ten seconds, with each metric, the speed and the time left."""
    log = MetricsLog(tmp_path, start=40)
    log.phase("training", total=100, start=40)
    for step, seconds in [(50, 0), (51, 4), (52, 9.9), (60, 10), (61, 15), (70, 30)]:
        clock[0] = 1000 + 100 + seconds
        log.show(step, {"likelihood": 0.51234567, "total": 2.0}, label="round 1/2 f", images_per_second=1234.5)
    log.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" step ")[1].split()[0] for line in lines] == ["50/100", "60/100", "70/100"]
    assert lines[0] == "round 1/2 f    step  50/100 likelihood 0.512     total 2         | 1234 images/s | ? left"
    assert [line.rpartition("| ")[2] for line in lines[1:]] == ["0:40 left", "0:45 left"]  # 10 steps in 10 s, 20 in 30
    assert len({line.index("|") for line in lines}) == 1


def test_the_time_left_is_from_the_pace_of_the_last_minute(tmp_path, capsys, clock):
    """What comes before the first steps doesn't count, as compiling doesn't, and neither do steps that are long past."""
    log = MetricsLog(tmp_path, start=0)
    log.phase("training", total=10_000)
    for step, seconds in [(20, 1000), (40, 1010), (60, 1020), (560, 1070), (1060, 1120)]:
        clock[0] = 1000 + seconds
        log.show(step, {"total": 2.0}, label="f", images_per_second=1.0)
    log.close()
    left = [line.rpartition("| ")[2].removesuffix(" left") for line in capsys.readouterr().err.splitlines()]
    assert left == ["?", "1:23:00", "1:22:50", "18:09", "14:54"]  # the last by 10 steps a second


def test_plain_line_at_the_end(tmp_path, capsys, clock):
    """The last step is log, however soon it comes, with no time left."""
    log = MetricsLog(tmp_path, start=0)
    log.phase("training", total=10)
    for step in (9, 10):
        log.show(step, {"total": 2.0}, label="g", images_per_second=1.0)
    log.close()
    assert capsys.readouterr().err.splitlines()[-1] == "g              step 10/10 total 2         | 1 images/s | 0:00 left"


def test_say_without_a_terminal(tmp_path, capsys):
    """`say` prints the line as it is on standard error, and nothing on standard output."""
    log = MetricsLog(tmp_path, start=0)
    log.say("goes on from step 3")
    log.close()
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "goes on from step 3\n")


def test_bar_on_a_terminal(tmp_path):
    """A terminal shows a bar with label, step, total, each metric and the speed; lines stand unbroken above it."""
    with terminal() as read:
        log = MetricsLog(tmp_path, start=40)
        log.say("goes on from step 40")
        log.phase("training", total=100, start=40)
        log.show(75, {"likelihood": 0.51234567}, label="round 1/2 f", images_per_second=1234.5)
        log.close()
        text = read()
    text = re.sub(r"\x1b\[\w", "", text)  # cursor moves between the bar and the lines below it
    assert text.startswith("goes on from step 40\r\n")
    assert "training:  40%" in text  # a resumed run's bar begins where the run does
    bar = re.findall(r"round 1/2 f:  75%[^\r]*", text)[-1]
    assert "75/100" in bar
    assert "1234 images/s" in bar
    assert re.search(r"[\r\n]likelihood 0.5123\s*[\r\n]", text)


def test_no_bar_in_a_file(tmp_path):
    """A log file has no bar and no control characters."""
    with redirect_stderr(io.StringIO()) as stream:
        log = MetricsLog(tmp_path, start=0)
        log.phase("training", total=100)
        log.show(75, {"likelihood": 0.5}, label="f", images_per_second=10.0)
        log.close()
    assert re.fullmatch(r"f +step  75/100 [ -~]*\n", stream.getvalue())


def test_metrics_in_a_store(bucket, clock):
    """An object store gets new lines every ten seconds, as long as others follow, and at the end; in a resumed run too."""
    directory = storage.path(f"{bucket}/run")
    log = MetricsLog(directory, start=None)
    assert lines_of(directory) == []
    for step, seconds in [(1, 1), (2, 9), (3, 10), (4, 11)]:
        clock[0] = 1000 + seconds
        log.record("img_net", step, {"total": 1.0}, labels={"net": "f"})
        assert [entry["step"] for entry in lines_of(directory)] == ([1, 2, 3] if seconds >= 10 else [])
    log.close()
    assert [entry["step"] for entry in lines_of(directory)] == [1, 2, 3, 4]
    record_run(directory, start=2, steps=[3])
    assert [entry["step"] for entry in lines_of(directory)] == [1, 2, 3]
    record_run(directory, start=None, steps=[1])
    assert [entry["step"] for entry in lines_of(directory)] == [1]


def test_tensorboard_in_a_store(bucket, tmp_path):
    """A store gets the same events as a disk, in folders of the same names."""
    folder = storage.path(f"{bucket}/run")
    for directory in (folder, tmp_path):
        log = MetricsLog(directory, start=3)
        log.record("label_net", 20, {"regression": 0.25}, labels={})
        log.record("img_net", 4, {"likelihood": 0.5, "total": 2}, labels={"net": "g"})
        log.close()
    (tmp_path / "copy").mkdir()
    for name, _ in storage.objects(folder).items():
        if name.startswith(b"tensorboard/"):
            path = tmp_path / "copy" / name.decode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.read(folder / name.decode()))
    scalars = scalars_of(tmp_path / "copy")
    assert len(scalars) == 3
    assert scalars == scalars_of(tmp_path)
    for part in ("label_net", "img_nets"):
        assert len(list((tmp_path / "copy" / "tensorboard" / part).iterdir())) == 1


def test_a_store_that_fails_for_a_while(bucket, clock, monkeypatch):
    """After a failed write the next one writes everything; a failure at the end is an error."""
    directory, write = storage.path(f"{bucket}/run"), storage.write

    def fail(path, content):
        raise OSError(5, "Unable to reach it", str(path))

    log = MetricsLog(directory, start=None)
    monkeypatch.setattr(storage, "write", fail)
    clock[0] += 20
    log.record("img_net", 1, {"total": 1.0}, labels={})
    monkeypatch.setattr(storage, "write", write)
    clock[0] += 20
    log.record("img_net", 2, {"total": 1.0}, labels={})
    assert [entry["step"] for entry in lines_of(directory)] == [1, 2]
    log.record("img_net", 3, {"total": 1.0}, labels={})
    monkeypatch.setattr(storage, "write", fail)
    with pytest.raises(OSError, match="Unable to reach it"):
        log.close()
    monkeypatch.setattr(storage, "write", write)
    log.close()
    assert [entry["step"] for entry in lines_of(directory)] == [1, 2, 3]


def test_callback(capsys):
    """A CallbackLog passes on what would be the lines of metrics.jsonl, and shows nothing."""
    lines = []
    log = CallbackLog(lines.append)
    log.say("resumed")
    log.record("img_net", 3, {"likelihood": 0.5}, labels={"net": "g"})
    log.show(3, {"likelihood": 0.5}, label="round 1/2 g", images_per_second=10.0)
    log.close()
    assert lines == [{"phase": "img_net", "step": 3, "net": "g", "likelihood": 0.5}]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "junk", [b"junk\n", b"\xff\xfe\n", b"[1]\n", b'{"phase": "img_net", "step": "1"}\n', b"[" * 2_000 + b"\n"]
)
def test_a_line_that_is_none_costs_only_itself(tmp_path, junk):
    """A first line that isn't of this log is dropped, and those that follow stay."""
    record_run(tmp_path, start=0, steps=[1, 2])
    path = tmp_path / "metrics.jsonl"
    intact = path.read_bytes()
    path.write_bytes(junk + intact)
    record_run(tmp_path, start=2, steps=[3])
    assert path.read_bytes().startswith(intact)
    assert [entry["step"] for entry in lines_of(tmp_path)] == [1, 2, 3]


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    """If TensorBoard's files can't be written the run is told at once; all files are closed, and nobody waits for a thread."""
    log = MetricsLog(tmp_path, start=None)

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._events._writer, "flush", full)
    for _ in range(30):  # more than a queue would hold
        with pytest.raises(OSError, match="No space left"):
            log.record("img_net", 1, {"total": 1.0}, labels={"net": "f"})
    monkeypatch.undo()
    log.close()
    assert log._file.closed
    log.close()


def test_names_in_a_bar_are_cleaned(tmp_path):
    """A line above the bar, and a metric's name from somebody's method, can't move the cursor."""
    with terminal() as read:
        log = MetricsLog(tmp_path, start=0)
        log.say("from \x1b[2J\x9b")
        log.show(5, {"\x1b]0;x\x07": 1.0}, label="f", images_per_second=1.0)
        log.close()
        text = read()
    assert "from \\x1b[2J\\x9b" in text
    assert "\\x1b]0;x\\x07 1" in text
    assert "\x1b]" not in text
