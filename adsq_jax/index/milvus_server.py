"""A Milvus server, as an index sees it: an address, and calls about one collection, with a bound of time."""

import logging
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
from pymilvus import MilvusClient, MilvusException
from pymilvus.client.types import LoadState
from pymilvus.grpc_gen import common_pb2

from adsq_jax.errors import InputError

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs the traceback of whatever it raises

_FORM = "http[s]://HOST[:PORT][/COLLECTION][?nlist=N][&nprobe=N]"
_COLLECTION = "adsq_jax"  # where the address names none
_PORTS = {"http": 19_530, "https": 443}
_MOST_LISTS = 65_536  # of BIN_IVF_FLAT, Milvus's bound
_PATIENCE = 60.0  # seconds that a call may take with all its repetitions, or that loading may stand still
_CONNECTING = 10.0  # seconds
_PAUSE = 0.5  # seconds before a call is repeated
_QUIET = 5.0  # seconds of loading of which nothing is said
# What passes when a server has started, a node has gone or the load gets less: Milvus's own codes, of 2.3; 2 is pymilvus's too,
# where it can't connect.
_PASSING = {2, 4, 5, 8, 101, 103, 106, 201, 202, 401, 500, 501, 503, 504, 600, 601, 602, 901, 902, 903, 904, 905}
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class Address(NamedTuple):
    """Where on which server an index is, taken apart."""

    place: str  # as it was given
    uri: str  # of the server
    collection: str
    nlist: int | None  # lists of BIN_IVF_FLAT to make; None for BIN_FLAT, which is exact
    nprobe: int | None  # lists to look through; None for all, which is exact

    @classmethod
    def of(cls, place: str) -> "Address":
        """Takes apart `http[s]://HOST[:PORT][/COLLECTION][?nlist=N][&nprobe=N]`.

        Raises:
          InputError: it isn't of this form.
        """
        try:
            parts = urllib.parse.urlsplit(place)
            host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
            options = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except (ValueError, KeyError) as error:
            raise InputError(f"{place!r:.200} is no address of an index: expected {_FORM}") from error
        if parts.username is not None or parts.password is not None:  # which would be shown in messages, and kept by shells
            raise InputError("the address of the index has a name or password in it: give MILVUS_TOKEN=NAME:PASSWORD instead")
        collection = parts.path.removeprefix("/") or _COLLECTION
        if not host or parts.fragment or not options.keys() <= {"nlist", "nprobe"}:
            raise InputError(f"{place!r:.200} is no address of an index: expected {_FORM}")
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,254}", collection):
            raise InputError(f"{collection!r:.300} can't name a collection: expected letters, digits and _, no digit first")
        for name, text in options.items():
            if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= _MOST_LISTS:
                raise InputError(f"{name}={text!r:.50} in {place!r:.200}: expected a whole number from 1 to {_MOST_LISTS:,}")
        numbers = {name: int(options[name]) if name in options else None for name in ("nlist", "nprobe")}
        if ":" in host:  # pymilvus loses the brackets
            raise InputError(f"{place!r:.200} is an address of IPv6 in numbers: give the server's name")
        return cls(place, f"{parts.scheme}://{host}:{port}", collection, **numbers)


class TooLargeError(InputError):
    """A question or an answer is larger than server and client pass on."""


class Calls:
    """Calls of a server about one collection, each within a bound of time, and again where what failed may pass.

    To connect is tried once: a wrong address shall be told at once.
    """

    def __init__(self, address: Address):
        self.address = address
        token = os.environ.get("MILVUS_TOKEN", "")
        try:
            self._client = MilvusClient(uri=address.uri, token=token, timeout=_CONNECTING, dedicated=True)
        except (MilvusException, grpc.RpcError) as error:
            raise self._told(error) from error

    def __call__(self, name: str, **named: Any) -> Any:
        """Calls a method of `MilvusClient`.

        Raises:
          InputError: the server refuses it, or isn't there for as long as the bound.
        """
        ends = time.monotonic() + _PATIENCE
        while True:
            # pymilvus repeats a call itself as long as this, and lets the last one take as long again.
            timeout = max(1.0, (ends - time.monotonic()) / 2)
            try:
                return getattr(self._client, name)(self.address.collection, timeout=timeout, **named)
            except (MilvusException, grpc.RpcError) as error:
                if not _passes(error) or time.monotonic() + _PAUSE > ends:
                    raise self._told(error) from error
            time.sleep(_PAUSE)

    def _told(self, error: Exception) -> InputError:
        """The one line for what pymilvus raises."""
        status, place, said = _status(error), self.address.place, _said(error)
        if status == grpc.StatusCode.RESOURCE_EXHAUSTED or "larger than max" in said:
            what = "a question" if "grpc: received" in said else "an answer"
            return TooLargeError(f"{place}: {what} larger than the server passes on ({said[:100]}): ask for less at a time")
        if status == grpc.StatusCode.UNAUTHENTICATED or "auth check failure" in said:
            given = "MILVUS_TOKEN isn't right" if os.environ.get("MILVUS_TOKEN") else "MILVUS_TOKEN isn't set"
            return InputError(
                f"{place} lets nobody in without a name and password, and {given}: set MILVUS_TOKEN=NAME:PASSWORD"
            )
        if status == grpc.StatusCode.PERMISSION_DENIED or "permission deny" in said:
            return InputError(f"{place} doesn't allow this ({said[:200]}): ask for the permission, or set another MILVUS_TOKEN")
        if status is not None or "Fail connecting" in said:
            return InputError(
                f"{self.address.uri} can't be reached ({_reason(error)}): check the address and that the server runs, and give "
                "the same command again; what was added before is kept"
            )
        return InputError(f"{place} can't be used (Milvus says: {said[:200]}): give the same command again when it is mended")

    def load(self) -> None:
        """Has the server take the index into its memory, and waits as long as that goes on.

        Raises:
          InputError: it stands still.
        """
        # What is loaded is left alone: the server refuses to load it again where it has more replicas.
        if self("get_load_state")["state"] == LoadState.NotLoad:
            self("load_collection", _async=True)
        began, progress, ends, told = time.monotonic(), -1, time.monotonic() + _PATIENCE, False
        while (state := self("get_load_state"))["state"] != LoadState.Loaded:
            if state.get("progress", 0) != progress:
                progress, ends = state.get("progress", 0), time.monotonic() + _PATIENCE
            if time.monotonic() > ends:
                raise InputError(
                    f"{self.address.place} isn't loaded after {_PATIENCE:.0f} s ({progress} %): give the server more memory"
                )
            if time.monotonic() > began + _QUIET and not told:
                print(f"{self.address.place} is being loaded by the server", file=sys.stderr)
                told = True
            time.sleep(0.1)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and what it came of; pymilvus raises some from themselves."""
    seen = list[BaseException]()
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__context__ if error.__cause__ is None or error.__cause__ in seen else error.__cause__


def _status(error: BaseException) -> grpc.StatusCode | None:
    """gRPC's status of what was raised, or of what that came of."""
    for one in _causes(error):
        code = one.code() if isinstance(one, grpc.RpcError) else getattr(one, "code", None)
        if isinstance(code, grpc.StatusCode):
            return code
    return None


def _said(error: BaseException) -> str:
    """The words of what was raised, in one line."""
    words = error.details() if isinstance(error, grpc.RpcError) else getattr(error, "message", "")
    return " ".join(str(words or error).split())


def _reason(error: BaseException) -> str:
    """Why there is no connection, of what gRPC says with all the addresses that it tried."""
    said, status = " ".join(_said(one) for one in _causes(error) if isinstance(one, grpc.RpcError)), _status(error)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "its certificate isn't trusted; GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names a file of those that are"
    if "handshake failed" in said:
        return "it doesn't speak TLS, as https:// wants"
    if "not ready" in said:
        return "it is starting"
    if not said or status == grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time; it is away, or has too much to do"
    if status not in _AWAY:
        return "something else than Milvus answers"
    return said.split("; ")[-1].split(": ")[-1].rstrip("]")[:100]


def _passes(error: Exception) -> bool:
    """Whether the same call may go well a little later."""
    status = _status(error)
    if status is not None:
        return status in _AWAY or "not ready" in _said(error)
    code = getattr(error, "code", 0) & 0xFFFF  # early servers put flags before it
    starting = code == 1 and getattr(error, "compatible_code", None) == common_pb2.NotReadyServe  # 1 is pymilvus's for anything
    return starting or code in _PASSING
