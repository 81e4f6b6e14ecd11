"""A Milvus server that a program starts by local.py, kills and starts again, for tests and benchmarks."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCAL = Path(__file__).with_name("local.py")
TOKEN = "root:Milvus"  # of a new server


class Server:
    """A server that keeps its data in a folder and its port over restarts."""

    def __init__(self, folder: Path):
        """Take a folder, empty or with a server's data."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self._folder = folder
        self.address = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server; return when it answers."""
        command = [sys.executable, str(LOCAL), f"--port={self._port}", f"--data={self._folder}", "--token"]
        with open(self._folder / "output", "w") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, text=True, start_new_session=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "is Milvus" in line, (self._folder / "output").read_text()

    def kill(self) -> None:
        """Kill all processes of the server by `kill -9`."""
        assert self._process is not None
        assert self._process.stdout is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)
        self._process.stdout.close()


def client(address: str) -> Any:
    """Return a client of pymilvus, which doesn't use this package."""
    from pymilvus import MilvusClient

    return MilvusClient(uri=address, token=TOKEN, timeout=30, dedicated=True)


def drop_all(address: str, *, but: str) -> None:
    """Drop all collections but those whose names begin with `but`."""
    connection = client(address)
    for name in connection.list_collections():
        if not name.startswith(but):
            connection.drop_collection(name)
    connection.close()
