#!/usr/bin/env python3
"""Start a Milvus server on this machine, to try and to test with: no Docker, and no other machine can reach it.

    python launch/milvus/local.py [--port=19530] [--data=FOLDER] [--token]
    python launch/milvus/local.py --install    install the server and exit

The server is PyPI's `milvus` (2.3.5), installed on first use into an environment of its own, .venv-milvus. It would listen on
all addresses of the machine, so it runs in a network namespace of its own (unshare, of util-linux), and connections to one port
of 127.0.0.1 are forwarded to it. Ctrl-C stops it. --data=FOLDER keeps its data. With --token it asks for
MILVUS_TOKEN=root:Milvus.
"""

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import venv
from pathlib import Path
from typing import Any

ENVIRONMENT = Path(__file__).parents[2] / ".venv-milvus"
PACKAGES = ("milvus==2.3.5", "setuptools", "protobuf<5", "marshmallow<4")
LISTENER = (
    "ADSQ_JAX_MILVUS_LISTENER"  # environment variable: the listening socket's descriptor, for the process with the server
)
CHUNK = 1 << 16  # bytes
SETTINGS = {
    "proxy.timeTickInterval": 50,  # milliseconds (default 200) that a strongly consistent answer waits at most
    "common.session.ttl": 5,  # seconds (default 30) until a killed server counts as dead and can start again
}
UNLISTED = {  # settings that the package's file of settings lacks: the server reads them from the environment
    "queryCoord_checkChannelInterval": "100",  # milliseconds (default 1000) that a new collection waits to be loaded, at most
}
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # of Linux


def install() -> Path:
    """Make the server's environment if there is none; return its Python."""
    python, finished = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "finished"
    ENVIRONMENT.mkdir(exist_ok=True)
    with open(ENVIRONMENT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process installs, others wait
        if not finished.exists():
            print(f"installing {PACKAGES[0]} into {ENVIRONMENT}", file=sys.stderr)
            venv.create(ENVIRONMENT, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
            finished.touch()
    return python


def listen_and_start(arguments: argparse.Namespace, folder: str) -> int:
    """Listen on the port, and run this file again in a network namespace of its own; return its exit status."""
    python = install()
    with socket.create_server(("127.0.0.1", arguments.port)) as listener:
        os.set_inheritable(listener.fileno(), True)
        command = ["unshare", "--map-root-user", "--net", str(python), __file__, f"--data={folder}"]
        command += ["--token"] if arguments.token else []
        environment = {**os.environ, **UNLISTED, LISTENER: str(listener.fileno())}
        with subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()]) as process:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: process.terminate())
            return process.wait()


def serve(arguments: argparse.Namespace) -> None:
    """Start the server inside the namespace, and forward connections to it."""
    from milvus import MilvusServer

    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    server = MilvusServer(data_dir=arguments.data)
    server.config.set("authorization_enabled", arguments.token)
    for name, value in SETTINGS.items():
        server.config.set(name, value)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.socket(fileno=int(os.environ[LISTENER]))
    threading.Thread(target=accept, args=(listener, server), daemon=True).start()
    try:
        server.start()  # returns when the server answers
        print(f"http://127.0.0.1:{listener.getsockname()[1]} is Milvus; Ctrl-C stops it", flush=True)
        server.server_proc.wait()
    finally:
        server.stop()


def accept(listener: socket.socket, server: Any) -> None:
    """Accept connections forever; those that come before the server answers are closed, as by any server that starts."""
    while True:
        client, _ = listener.accept()
        threading.Thread(target=connect, args=(client, server.listen_port), daemon=True).start()


def connect(client: socket.socket, port: int) -> None:
    """Forward between a client and a new connection to the server, both ways."""
    with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=forward, args=(server, client), daemon=True)
        back.start()
        forward(client, server)
        back.join()


def forward(source: socket.socket, target: socket.socket) -> None:
    """Forward bytes until one end is closed; then close both."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK):
            target.sendall(chunk)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main() -> int:
    """Read the command line, and run the server or install it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=19_530, help="the port of 127.0.0.1; 0: any that is free")
    parser.add_argument("--data", default="", help="the folder of the data; default: a temporary one")
    parser.add_argument("--token", action="store_true", help="require a name and password, at first root:Milvus")
    parser.add_argument("--install", action="store_true", help="install the server and exit")
    arguments = parser.parse_args()
    if LISTENER in os.environ:
        serve(arguments)
        return 0
    if arguments.install:
        install()
        return 0
    with tempfile.TemporaryDirectory(prefix="milvus_") as temporary:
        return listen_and_start(arguments, os.path.abspath(os.path.expanduser(arguments.data) or temporary))


if __name__ == "__main__":
    sys.exit(main())
