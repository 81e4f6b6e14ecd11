"""What a run tells: JSON lines that survive a resume, TensorBoard events, plain lines, and a bar on a terminal."""

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
from adsq_jax.run.metrics_log import MetricsLog


def lines_of(directory):
    return [json.loads(line) for line in storage.read(directory / "metrics.jsonl").splitlines()]


def events_of(directory):
    """Reads TFRecords by their own description: length, its checksum, content, its checksum."""
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
    """Records img_net metrics of some steps."""
    shown = MetricsLog(directory, start=start, total=100)
    for step in steps:
        shown.record("img_net", step, {"likelihood": step / 2, "total": 1.0}, labels={"net": net})
    shown.close()


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
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
    """Standard error on a pseudo-terminal of 160 columns; gives a function that reads what was written there."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 160))
    os.set_blocking(master, False)
    with os.fdopen(slave, "w") as stream, redirect_stderr(stream):
        yield partial(_read_all, master)
    os.close(master)


def test_lines_are_json(tmp_path):
    """Each line is an object with phase, step, labels and values, in the order they came, and is on disk at once."""
    shown = MetricsLog(tmp_path, start=0, total=10)
    shown.record("label_net", 20, {"regression": 0.25}, labels={})
    shown.record("img_net", 3, {"likelihood": 0.5, "total": 1e-9}, labels={"net": "g"})
    assert lines_of(tmp_path) == [
        {"phase": "label_net", "step": 20, "regression": 0.25},
        {"phase": "img_net", "step": 3, "net": "g", "likelihood": 0.5, "total": 1e-9},
    ]
    shown.close()


def test_resume_drops_what_comes_again(tmp_path):
    """Lines of steps beyond the start go; those before, and LabelNet's whatever their number, stay byte for byte."""
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
    """A last line that a kill cut short goes, even where only its end of line is missing, or that is none of ours."""
    record_run(tmp_path, start=0, steps=[1, 2])
    whole = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(whole + torn)
    record_run(tmp_path, start=5, steps=[6])
    assert (tmp_path / "metrics.jsonl").read_text().startswith(whole)
    assert [entry["step"] for entry in lines_of(tmp_path)] == [1, 2, 6]


def test_begin_again_without_a_checkpoint(tmp_path):
    """A run that begins anew, since it was killed before its first checkpoint, keeps none of the lines."""
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
    """Every value is an event whose tag has phase, labels and name, with its step and its number."""
    shown = MetricsLog(tmp_path, start=0, total=10)
    shown.record("label_net", 20, {"regression": 0.25}, labels={})
    shown.record("img_net", 3, {"likelihood": 0.5, "total": 2}, labels={"net": "g"})
    shown.close()
    assert sorted(scalars_of(tmp_path)) == [
        ("img_net/g/likelihood", 3, 0.5),
        ("img_net/g/total", 3, 2.0),
        ("label_net/regression", 20, 0.25),
    ]


@pytest.mark.parametrize(("start", "purged"), [(None, [0, 0]), (0, [1]), (30, [31])])
def test_tensorboard_on_resume(tmp_path, start, purged):
    """A resumed run tells TensorBoard to forget the steps beyond its start, but not LabelNet's; a new one, everything."""
    record_run(tmp_path, start=start, steps=[40])
    events = events_of(tmp_path)
    assert [event.step for event in events if event.session_log.status == event_pb2.SessionLog.START] == purged


def test_plain_lines(tmp_path, capsys, clock):
    """Without a terminal there are plain lines, one in ten seconds, with each term, the speed and the time left."""
    shown = MetricsLog(tmp_path, start=40, total=100)
    for step, seconds in [(50, 0), (51, 4), (52, 9.9), (60, 10), (61, 15), (70, 30)]:
        clock[0] = 1000 + 100 + seconds
        shown.show(step, {"likelihood": 0.51234567, "total": 2.0}, label="round 1/2 f", images_per_second=1234.5)
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" step ")[1].split()[0] for line in lines] == ["50/100", "60/100", "70/100"]
    assert lines[0] == "round 1/2 f step 50/100 likelihood 0.5123 total 2 | 1234 images/s | 8:20 left"  # 10 s a step, 50 steps


def test_plain_line_at_the_end(tmp_path, capsys, clock):
    """The last step is shown, however soon it comes, and nothing is left."""
    shown = MetricsLog(tmp_path, start=0, total=10)
    for step in (9, 10):
        shown.show(step, {"total": 2.0}, label="g", images_per_second=1.0)
    shown.close()
    assert capsys.readouterr().err.splitlines()[-1] == "g step 10/10 total 2 | 1 images/s | 0:00 left"


def test_say_without_a_terminal(tmp_path, capsys):
    """A line that is said goes to standard error as it is, and nothing to standard output."""
    shown = MetricsLog(tmp_path, start=0, total=10)
    shown.say("goes on from step 3")
    shown.close()
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "goes on from step 3\n")


def test_bar_on_a_terminal(tmp_path):
    """On a terminal a bar tells label, position out of the total, each term and the speed; lines stand above it, whole."""
    with terminal() as read:
        shown = MetricsLog(tmp_path, start=40, total=100)
        shown.say("goes on from step 40")
        shown.show(75, {"likelihood": 0.51234567}, label="round 1/2 f", images_per_second=1234.5)
        shown.close()
        text = read()
    text = re.sub(r"\x1b\[\w", "", text)  # cursor moves between the bar and the lines below it
    assert re.search(r"[\r\n]goes on from step 40\r\n", text)
    assert "40/100" in text.split("\r")[1]  # a resumed run's bar begins where the run does
    bar = re.findall(r"round 1/2 f:  75%[^\r]*", text)[-1]
    assert "75/100" in bar
    assert "1234 images/s" in bar
    assert re.search(r"[\r\n]likelihood 0.5123\s*[\r\n]", text)


def test_no_bar_in_a_file(tmp_path):
    """In a log file there is no bar and no control character."""
    with redirect_stderr(io.StringIO()) as stream:
        shown = MetricsLog(tmp_path, start=0, total=100)
        shown.show(75, {"likelihood": 0.5}, label="f", images_per_second=10.0)
        shown.close()
    assert re.fullmatch(r"f step 75/100 [ -~]*\n", stream.getvalue())


def test_metrics_in_a_store(bucket, clock):
    """Lines are in an object store ten seconds after they came at the latest, if others follow, and at the end; resumed too."""
    directory = storage.path(f"{bucket}/run")
    shown = MetricsLog(directory, start=None, total=100)
    assert lines_of(directory) == []
    for step, seconds in [(1, 1), (2, 9), (3, 10), (4, 11)]:
        clock[0] = 1000 + seconds
        shown.record("img_net", step, {"total": 1.0}, labels={"net": "f"})
        assert [entry["step"] for entry in lines_of(directory)] == ([1, 2, 3] if seconds >= 10 else [])
    shown.close()
    assert [entry["step"] for entry in lines_of(directory)] == [1, 2, 3, 4]
    record_run(directory, start=2, steps=[3])
    assert [entry["step"] for entry in lines_of(directory)] == [1, 2, 3]
    record_run(directory, start=None, steps=[1])
    assert [entry["step"] for entry in lines_of(directory)] == [1]


def test_tensorboard_in_a_store(bucket, tmp_path):
    """The same events as on a disk, in folders of the same names."""
    folder = storage.path(f"{bucket}/run")
    for directory in (folder, tmp_path):
        shown = MetricsLog(directory, start=3, total=10)
        shown.record("label_net", 20, {"regression": 0.25}, labels={})
        shown.record("img_net", 4, {"likelihood": 0.5, "total": 2}, labels={"net": "g"})
        shown.close()
    (tmp_path / "copy").mkdir()
    for name, _ in storage.objects(folder).items():
        if name.startswith(b"tensorboard/"):
            path = tmp_path / "copy" / name.decode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.read(folder / name.decode()))
    found, expected = scalars_of(tmp_path / "copy"), scalars_of(tmp_path)
    assert len(found) == 3
    assert found == expected
    for part in ("label_net", "img_nets"):
        assert len(list((tmp_path / "copy" / "tensorboard" / part).iterdir())) == 1


def test_a_store_that_fails_for_a_while(bucket, clock, monkeypatch):
    """A write that fails is made up for by the next; one that fails at the end is an error."""
    directory, write = storage.path(f"{bucket}/run"), storage.write

    def fail(path, content):
        raise OSError(5, "Unable to reach it", str(path))

    shown = MetricsLog(directory, start=None, total=100)
    monkeypatch.setattr(storage, "write", fail)
    clock[0] += 20
    shown.record("img_net", 1, {"total": 1.0}, labels={})
    monkeypatch.setattr(storage, "write", write)
    clock[0] += 20
    shown.record("img_net", 2, {"total": 1.0}, labels={})
    assert [entry["step"] for entry in lines_of(directory)] == [1, 2]
    shown.record("img_net", 3, {"total": 1.0}, labels={})
    monkeypatch.setattr(storage, "write", fail)
    with pytest.raises(OSError, match="Unable to reach it"):
        shown.close()
    monkeypatch.setattr(storage, "write", write)
    shown.close()
    assert [entry["step"] for entry in lines_of(directory)] == [1, 2, 3]
