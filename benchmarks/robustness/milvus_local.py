"""A Milvus server on this machine, for benchmarks and tests: started by launch/milvus/local.py, killed, started again."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCAL = Path(__file__).parents[2] / "launch" / "milvus" / "local.py"
TOKEN = "root:Milvus"  # of a new server


class Server:
    """A server with its data in a folder, always at the same port."""

    def __init__(self, folder: Path):
        """Takes a folder, which may hold the data of a server before."""
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
        """Returns when it answers."""
        command = [sys.executable, str(LOCAL), f"--port={self._port}", f"--data={self._folder}", "--token"]
        with open(self._folder / "output", "w") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, text=True, start_new_session=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "is Milvus" in line, (self._folder / "output").read_text()

    def kill(self) -> None:
        """kill -9, of all that belongs to it."""
        assert self._process is not None
        assert self._process.stdout is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)
        self._process.stdout.close()


def client(address: str) -> Any:
    """pymilvus's, past this library."""
    from pymilvus import MilvusClient

    return MilvusClient(uri=address, token=TOKEN, timeout=30, dedicated=True)


def drop_all(address: str, *, but: str) -> None:
    """Drops all collections but those whose names begin so."""
    found = client(address)
    for name in found.list_collections():
        if not name.startswith(but):
            found.drop_collection(name)
    found.close()
