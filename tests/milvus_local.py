"""A Milvus server for tests, by launch/milvus/local.py: started, killed, started again."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

LOCAL = Path(__file__).parents[1] / "launch" / "milvus" / "local.py"
TOKEN = "root:Milvus"  # of a new server


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """A server in a folder, always at the same port."""

    def __init__(self, folder):
        self._folder, self._port = folder, free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self._process = None

    def start(self):
        """Returns when it answers; what it held before is there again."""
        command = [sys.executable, LOCAL, f"--port={self._port}", f"--data={self._folder}", "--token"]
        with open(self._folder / "output", "w") as output:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=output, stdin=subprocess.DEVNULL, text=True, start_new_session=True
            )
        line = self._process.stdout.readline()
        assert "is Milvus" in line, (self._folder / "output").read_text()

    def kill(self):
        """kill -9, with all that belongs to it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)
        self._process.stdout.close()


def client(address):
    """pymilvus's, past this library."""
    from pymilvus import MilvusClient

    return MilvusClient(uri=address, token=TOKEN, timeout=30, dedicated=True)


def drop_all(address):
    found = client(address)
    for name in found.list_collections():
        found.drop_collection(name)
    found.close()
