"""The address of an index on a Milvus server, and calls about its collection that repeat and time out."""

import contextlib
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

from adsq_jax.errors import InputError, first_line

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs the traceback of every error that it raises

_FORM = "http[s]://HOST[:PORT][/COLLECTION][?nlist=N][&nprobe=N]"
_COLLECTION = "adsq_jax"  # if the address names none
_PORTS = {"http": 19_530, "https": 443}
_MAX_LISTS = 65_536  # of BIN_IVF_FLAT; Milvus's limit
_PAUSE = 0.5  # seconds before a call is repeated
_QUIET = 5.0  # seconds of loading before a message
# Error codes of Milvus 2.3 that go away when the server has started, a node has been replaced or the load falls; 2 is also
# pymilvus's code if it can't connect.
_TEMPORARY = {2, 4, 5, 8, 101, 103, 106, 201, 202, 401, 500, 501, 503, 504, 600, 601, 602, 901, 902, 903, 904, 905}
_NOT_FOUND, _NOT_LOADED = 100, 101  # codes of a collection
_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class Address(NamedTuple):
    """The parts of an index's address."""

    location: str  # as it was given
    uri: str  # of the server
    collection: str
    nlist: int | None  # lists of BIN_IVF_FLAT to make; None for BIN_FLAT, which is exact
    nprobe: int | None  # lists to search; None for all, which is exact

    @classmethod
    def parse(cls, location: str) -> "Address":
        """Parse `http[s]://HOST[:PORT][/COLLECTION][?nlist=N][&nprobe=N]`."""
        if re.match("[^/]*//[^/?#]*@", location):  # first of all: a message would show the password, and shells keep it
            raise InputError("the address of the index has a name in it; fix: set MILVUS_TOKEN=NAME:PASSWORD instead")
        invalid = InputError(f"expected the address of an index, {_FORM}, got {location!r:.200}")
        try:
            parts = urllib.parse.urlsplit(location)
            host, port = parts.hostname, _PORTS[parts.scheme] if parts.port is None else parts.port
            options = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except (ValueError, KeyError) as error:
            raise invalid from error
        collection = parts.path.removeprefix("/") or _COLLECTION
        if not host or parts.fragment or not options.keys() <= {"nlist", "nprobe"}:
            raise invalid
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,254}", collection):
            raise InputError(f"expected a collection's name of letters, digits and _, no digit first, got {collection!r:.300}")
        for name, text in options.items():
            if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= _MAX_LISTS:
                raise InputError(
                    f"{name} in {location!r:.200}: expected a whole number from 1 to {_MAX_LISTS:,}, got {text!r:.50}"
                )
        numbers = {name: int(options[name]) if name in options else None for name in ("nlist", "nprobe")}
        if ":" in host:  # pymilvus loses the brackets
            raise InputError(f"{location!r:.200} is a numeric IPv6 address; fix: give the server's name")
        return cls(location, f"{parts.scheme}://{host}:{port}", collection, **numbers)


class TooLargeError(InputError):
    """A question or an answer exceeds the message size of server or client."""


def no_index(location: str) -> InputError:
    """Return what to say where there is no collection of that name."""
    return InputError(f"{location} holds no index; fix: make one with adsq encode, or give another collection")


@contextlib.contextmanager
def understood(address: Address) -> Iterator[None]:
    """Turn what fails inside, while an answer is taken apart, into an `InputError`: it isn't one of Milvus's."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(
            f"{address.location}: the server's answer isn't understood ({type(error).__name__}: {first_line(error)}); fix: "
            "check that the address is that of a Milvus server, and its version"
        ) from error


class Calls:
    """Calls about one collection, each with a time limit, repeated while the error is temporary.

    Connecting is tried once, so that a wrong address fails at once.
    """

    time_limit = 60.0
    """Seconds for a call with all its repetitions, or for loading without progress."""
    connecting_limit = 10.0
    """Seconds for connecting."""

    def __init__(self, address: Address):
        """Connect; raise `InputError` if the server can't be reached or refuses the token."""
        self.address = address
        token = os.environ.get("MILVUS_TOKEN", "")
        try:
            self._client = MilvusClient(uri=address.uri, token=token, timeout=self.connecting_limit, dedicated=True)
        except (MilvusException, grpc.RpcError) as error:
            raise self._translate(error) from error

    def __call__(self, name: str, **arguments: Any) -> Any:
        """Call a method of `MilvusClient` with the collection's name and these arguments; raise `InputError` if it fails."""
        end = time.monotonic() + self.time_limit
        while True:
            # pymilvus repeats a call for as long as this, and lets the last one take as long again.
            timeout = max(1.0, (end - time.monotonic()) / 2)
            try:
                return getattr(self._client, name)(self.address.collection, timeout=timeout, **arguments)
            except (MilvusException, grpc.RpcError) as error:
                if not _is_temporary(error) or time.monotonic() + _PAUSE > end:
                    raise self._translate(error) from error
                released = _code(error) == _NOT_LOADED
            time.sleep(_PAUSE)
            if released:  # by somebody else, or the server has started again
                self.load()

    def _translate(self, error: Exception) -> InputError:
        """Return pymilvus's error as an `InputError` of one line."""
        status, location, text = _status(error), self.address.location, _text(error)
        if status == grpc.StatusCode.RESOURCE_EXHAUSTED or "larger than max" in text:
            what = "a question" if "grpc: received" in text else "an answer"
            return TooLargeError(f"{location}: {what} is too large for the server ({text[:100]}); fix: ask for less at a time")
        if status == grpc.StatusCode.UNAUTHENTICATED or "auth check failure" in text:
            problem = "got a wrong MILVUS_TOKEN" if os.environ.get("MILVUS_TOKEN") else "MILVUS_TOKEN isn't set"
            return InputError(f"{location} expects a name and password, {problem}; fix: set MILVUS_TOKEN=NAME:PASSWORD")
        if status == grpc.StatusCode.PERMISSION_DENIED or "permission deny" in text:
            return InputError(f"{location} denies permission ({text[:200]}); fix: ask for it, or set another MILVUS_TOKEN")
        if status is None and _code(error) == _NOT_FOUND:
            return no_index(location)
        if status is not None or "Fail connecting" in text:
            return InputError(
                f"{self.address.uri} can't be reached ({_reason(error)}); fix: check the address and that the server runs, and "
                "repeat the command; items that were added stay"
            )
        return InputError(f"{location} can't be used (Milvus: {text[:200]}); fix: repair the server, then repeat the command")

    def load(self) -> None:
        """Make the server load the collection into its memory; wait as long as there is progress."""
        # A loaded collection is left alone: the server refuses to load it again if it has more replicas.
        if self("get_load_state")["state"] == LoadState.NotLoad:
            self("load_collection", _async=True)
        began, progress, end, reported = time.monotonic(), -1, time.monotonic() + self.time_limit, False
        while (state := self("get_load_state"))["state"] != LoadState.Loaded:
            if state.get("progress", 0) != progress:
                progress, end = state.get("progress", 0), time.monotonic() + self.time_limit
            if time.monotonic() > end:
                raise InputError(
                    f"{self.address.location}: no progress at {progress} % of loading for {self.time_limit:.0f} s; fix: give "
                    "the server more memory"
                )
            if time.monotonic() > began + _QUIET and not reported:
                print(f"the server is loading {self.address.location}", file=sys.stderr)
                reported = True
            time.sleep(0.1)

    def close(self) -> None:
        """End the connection."""
        self._client.close()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes; pymilvus raises some from themselves."""
    earlier = list[BaseException]()
    while error is not None and error not in earlier:
        earlier.append(error)
        yield error
        error = error.__context__ if error.__cause__ is None or error.__cause__ in earlier else error.__cause__


def _status(error: BaseException) -> grpc.StatusCode | None:
    """Return the gRPC status of an error or of its causes."""
    for cause in _causes(error):
        code = cause.code() if isinstance(cause, grpc.RpcError) else getattr(cause, "code", None)
        if isinstance(code, grpc.StatusCode):
            return code
    return None


def _code(error: BaseException) -> int:
    """Return Milvus's code of an error, 0 if it has none."""
    code = getattr(error, "code", 0)
    return code & 0xFFFF if isinstance(code, int) else 0  # early servers set flags above these bits


def _text(error: BaseException) -> str:
    """Return an error's text as one line."""
    text = error.details() if isinstance(error, grpc.RpcError) else getattr(error, "message", "")
    return " ".join(str(text or error).split())


def _reason(error: BaseException) -> str:
    """Say why there is no connection; gRPC's own text lists every address that it tried."""
    text, status = " ".join(_text(cause) for cause in _causes(error) if isinstance(cause, grpc.RpcError)), _status(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate isn't trusted; GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names a file of trusted ones"
    if "handshake failed" in text:
        return "it doesn't speak TLS, which https:// needs"
    if "not ready" in text:
        return "it is starting"
    if not text or status == grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time; it is down or overloaded"
    if status not in _UNREACHABLE:
        return "something other than Milvus answers"
    return text.split("; ")[-1].split(": ")[-1].rstrip("]")[:100]


def _is_temporary(error: Exception) -> bool:
    """Return whether the same call may succeed a little later."""
    status = _status(error)
    if status is not None:
        return status in _UNREACHABLE or "not ready" in _text(error)
    code = _code(error)
    # pymilvus uses code 1 for any error.
    starting = code == 1 and getattr(error, "compatible_code", None) == common_pb2.NotReadyServe
    return starting or code in _TEMPORARY
