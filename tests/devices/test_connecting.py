"""Connecting to other processes: what it leaves behind, how it is interrupted, and what is compared first."""

import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import jax
import pytest

from adsq_jax.devices import processes


def test_alone_nothing_waits_for_others():
    """Without a cluster, the timer that ends a process whose others don't come is off at once."""
    processes.connect(coordinator=None, processes=None, process=None)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(timeout=10)  # one that is off ends in a moment
            assert not thread.is_alive()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_for_others(tmp_path, number, status):
    """Ctrl-C ends a process at once while it waits for a process 0 that doesn't answer."""
    with socket.create_server(("localhost", 0)) as silent:
        command = [sys.executable, "-m", "adsq_jax.main", "--config=configs/digits.py", f"--workdir={tmp_path}"]
        command += [f"--coordinator=localhost:{silent.getsockname()[1]}", "--processes=2", "--process=1"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            silent.settimeout(120)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(number)
                try:
                    _, said = process.communicate(timeout=20)
                finally:
                    process.kill()
    assert (process.returncode, said.splitlines()[-1]) == (status, "stopped")


def test_all_have_as_many_devices(monkeypatch):
    """Where one process has more devices than another, all say so in one line, before they exchange anything."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(process_index=index) for index in (0, 1, 1)])
    with pytest.raises(processes.AgreedError, match="process 1 has 2 devices and process 0 has 1; fix: "):
        processes.check_same(config="x")


def test_lost_connections(monkeypatch):
    """JAX says in several ways that another process has ended; alone, each of them is a defect."""
    lost = [jax.errors.JaxRuntimeError("UNAVAILABLE"), ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer")]
    assert not any(map(processes.is_lost_connection, lost))
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert all(map(processes.is_lost_connection, lost))
    assert not processes.is_lost_connection(ValueError("another"))
