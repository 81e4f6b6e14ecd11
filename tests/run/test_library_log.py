"""Tracebacks of libraries go into a file of the run; what is for the user stays on standard error."""

import gc
import logging
import sys
import threading
from types import SimpleNamespace

import pytest
from absl import logging as absl_logging

from adsq_jax import storage
from adsq_jax.run import library_log


class Unhappy:
    """Fails where Python can raise nothing."""

    def __del__(self):
        raise ValueError("in del")


def fail():
    """Fail as libraries do: in a log, in a thread, where an object ends."""
    try:
        raise OSError(28, "No space left on device")
    except OSError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    absl_logging.error("error of orbax\nin two lines")
    thread = threading.Thread(target=lambda: 1 / 0, name="writer")
    thread.start()
    thread.join()
    Unhappy()
    gc.collect()


@pytest.fixture(autouse=True)
def handler(monkeypatch):
    """The handler that commands have, which writes to standard error."""
    handler = absl_logging.get_absl_handler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    return handler


def test_tracebacks_go_into_a_file(tmp_path, capsys, handler):
    """Standard error gets one line that names the file, and warnings of one line; afterwards all is as it was."""
    hooks = threading.excepthook, sys.unraisablehook
    with library_log.writing(tmp_path):
        absl_logging.warning("checkpoint 5 is damaged")
        assert not list(tmp_path.iterdir())
        fail()
        fail()
    text = (tmp_path / library_log.NAME).read_text()
    for said in ("never retrieved", "No space left", "in two lines", "in the thread writer", "ZeroDivisionError", "in del"):
        assert text.count(said) >= 2
    *_, warning, line = capsys.readouterr().err.splitlines()
    assert warning.endswith("checkpoint 5 is damaged")
    assert line == f"a library reports an error: see {tmp_path / library_log.NAME}"
    assert (threading.excepthook, sys.unraisablehook) == hooks
    assert not handler.filters


def test_a_thread_in_cpp_that_fails_after_an_error(tmp_path, monkeypatch):
    """What it raises, which names no object, goes to the file; what has a name goes where it always went."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda failed: seen.append(str(failed.exc_value)))
    with pytest.raises(KeyError), library_log.writing(tmp_path):
        raise KeyError
    sys.unraisablehook(SimpleNamespace(err_msg=None, object=None, exc_value=RuntimeError("loop is closed")))  # as CPython does
    Unhappy()
    gc.collect()
    assert seen == ["in del"]
    assert "loop is closed" in (tmp_path / library_log.NAME).read_text()


def test_a_file_that_cannot_be_written(tmp_path, capsys):
    """On a full disk tracebacks are lost, and nothing else is."""
    (tmp_path / library_log.NAME).mkdir()
    with library_log.writing(tmp_path):
        fail()
    assert capsys.readouterr().err == ""


def test_a_library_that_repeats_itself(tmp_path, monkeypatch):
    """The file doesn't grow without bound."""
    monkeypatch.setattr(library_log, "_MOST_BYTES", 2_000)
    with library_log.writing(tmp_path):
        for _ in range(100):
            absl_logging.error("x" * 100)
    assert 1_000 < (tmp_path / library_log.NAME).stat().st_size <= 2_000


def test_an_object_store(tmp_path, capsys):
    """It can't append: there, everything goes to standard error."""
    with library_log.writing(storage.path("s3://bucket/run")):
        absl_logging.error("here")
    assert "here" in capsys.readouterr().err
