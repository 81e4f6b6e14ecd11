"""The cores of this machine: threads that read, and devices that the CPU is split into."""

import os

import jax

_LEAST_SHARE = 16  # images a step: less than that keeps no core busy


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reading_threads(wanted: int) -> int:
    """Threads that read and decode images: as many as wanted, or, for 0, one a core and one that waits for the disk."""
    return wanted or cores() + 1


def split_into_devices(*, batch_size: int, host_devices: int) -> None:
    """Splits the CPU into devices, before JAX starts. Without an accelerator that lets XLA use every core.

    XLA runs many CPU operations on one core; with a device a core each works on its own share of the batch.

    Args:
      batch_size: images a step.
      host_devices: how many; 0 for one a core, as far as each gets a whole and equal share of 16 images or more.

    Raises:
      RuntimeError: JAX has started already.
    """
    most = max(1, min(cores(), batch_size // _LEAST_SHARE))
    jax.config.update("jax_num_cpu_devices", host_devices or largest_divisor(batch_size, most))


def use_all_cores() -> None:
    """Makes a device of each core of the CPU, before JAX starts: a scatter of XLA's runs on one core.

    Raises:
      RuntimeError: JAX has started already.
    """
    jax.config.update("jax_num_cpu_devices", cores())


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most `most`."""
    return max(d for d in range(1, most + 1) if number % d == 0)
