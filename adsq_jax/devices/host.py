"""The CPU cores of this machine: threads that read images, and the devices that JAX sees."""

import contextlib
import os

import jax

_MIN_IMAGES = 16  # per device: fewer don't keep a core busy


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reading_threads(wanted: int) -> int:
    """Return how many threads read and decode images: `wanted`, or for 0 one a core; further ones wait for Python's lock."""
    return wanted or cores()


def split_into_devices(*, batch_size: int, host_devices: int) -> None:
    """Split the CPU into several JAX devices, because XLA runs many operations on one core. No effect once JAX has started.

    host_devices=0: one device per core, or fewer so that the batch divides evenly and each gets at least 16 images.
    """
    most = max(1, min(cores(), batch_size // _MIN_IMAGES))
    _set_devices(host_devices or largest_divisor(batch_size, most))


def use_all_cores() -> None:
    """Make each core of the CPU a JAX device, because XLA runs a scatter on one core. No effect once JAX has started."""
    _set_devices(cores())


def _set_devices(count: int) -> None:
    with contextlib.suppress(RuntimeError):  # JAX has started, in a notebook or by an earlier command: it keeps its devices
        jax.config.update("jax_num_cpu_devices", count)


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most `most`."""
    return max(d for d in range(1, most + 1) if number % d == 0)
