#!/usr/bin/env python3
"""Starts a Milvus server on this machine, for trying and for tests: no Docker, no other machine can reach it.

    python launch/milvus/local.py [--port=19530] [--data=FOLDER] [--token]
    python launch/milvus/local.py --install    installs it, and no more

The server is PyPI's `milvus` (2.3.5), installed on first use into an environment of its own, .venv-milvus. It would listen on
all of the machine's addresses, so it runs in a network of its own (unshare, of util-linux), and one port of 127.0.0.1 is passed
on to it. Ctrl-C ends it. With --data=FOLDER what it holds stays. With --token it asks for MILVUS_TOKEN=root:Milvus.
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

PLACE = Path(__file__).parents[2] / ".venv-milvus"
PACKAGES = ("milvus==2.3.5", "setuptools", "protobuf<5", "marshmallow<4")
INSIDE = "ADSQ_JAX_MILVUS_LISTENER"  # the number of the listening socket, where this file runs beside the server
PIECE = 1 << 16  # bytes
# A strongly consistent answer waits for the next tick, in milliseconds (200 by default); a server that was killed and is
# started again waits until its former self is taken for dead, in seconds (30).
SOONER = {"proxy.timeTickInterval": 50, "common.session.ttl": 5}
SET_FLAGS, UP = 0x8914, 1  # SIOCSIFFLAGS and IFF_UP of Linux


def install() -> Path:
    """Makes the server's environment, if it isn't there; its Python."""
    python, finished = PLACE / "bin" / "python", PLACE / "finished"
    PLACE.mkdir(exist_ok=True)
    with open(PLACE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one installs, others wait for it
        if not finished.exists():
            print(f"installing {PACKAGES[0]} into {PLACE}", file=sys.stderr)
            venv.create(PLACE, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
            finished.touch()
    return python


def outside(arguments: argparse.Namespace, folder: str) -> int:
    """Listens, and starts this file again in a network of its own."""
    python = install()
    with socket.create_server(("127.0.0.1", arguments.port)) as listener:
        os.set_inheritable(listener.fileno(), True)
        command = ["unshare", "--map-root-user", "--net", str(python), __file__, f"--data={folder}"]
        command += ["--token"] if arguments.token else []
        environment = {**os.environ, INSIDE: str(listener.fileno())}
        with subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()]) as process:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: process.terminate())
            return process.wait()


def inside(arguments: argparse.Namespace) -> None:
    """Starts the server, in a network where nobody else is, and passes connections on to it."""
    from milvus import MilvusServer

    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh", b"lo", UP))
    server = MilvusServer(data_dir=arguments.data)
    server.config.set("authorization_enabled", arguments.token)
    for name, value in SOONER.items():
        server.config.set(name, value)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.socket(fileno=int(os.environ[INSIDE]))
    threading.Thread(target=accept, args=(listener, server), daemon=True).start()
    try:
        server.start()  # returns when it answers
        print(f"http://127.0.0.1:{listener.getsockname()[1]} is Milvus; Ctrl-C ends it", flush=True)
        server.server_proc.wait()
    finally:
        server.stop()


def accept(listener: socket.socket, server: Any) -> None:
    """Passes on who comes; one who comes before the server answers is sent away, as by any server that starts."""
    while True:
        accepted, _ = listener.accept()
        threading.Thread(target=connect, args=(accepted, server.listen_port), daemon=True).start()


def connect(accepted: socket.socket, port: int) -> None:
    """Joins a connection with a new one to the server."""
    with accepted, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=passed_on, args=(server, accepted), daemon=True)
        back.start()
        passed_on(accepted, server)
        back.join()


def passed_on(source: socket.socket, target: socket.socket) -> None:
    """Passes on what comes, until an end is closed, and then closes both."""
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=19_530, help="of 127.0.0.1; 0: any that is free")
    parser.add_argument("--data", default="", help="a folder; a temporary one if not given")
    parser.add_argument("--token", action="store_true", help="ask for name and password, at first root:Milvus")
    parser.add_argument("--install", action="store_true", help="install the server, and no more")
    arguments = parser.parse_args()
    if INSIDE in os.environ:
        inside(arguments)
        return 0
    if arguments.install:
        install()
        return 0
    with tempfile.TemporaryDirectory(prefix="milvus_") as temporary:
        return outside(arguments, os.path.abspath(arguments.data or temporary))


if __name__ == "__main__":
    sys.exit(main())
