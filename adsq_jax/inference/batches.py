"""A compiled function over batches of images, shared by the devices of this process."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from adsq_jax.devices.data_parallel import LocalDevices


def round_up(batch_size: int, local: LocalDevices) -> int:
    """Round a number of images up, so that each device gets the same number."""
    devices = len(local.devices)
    return -(-batch_size // devices) * devices


def map_batches(
    function: Callable[..., Any], variables: Any, inputs: Iterable[np.ndarray], *, local: LocalDevices
) -> Iterator[Any]:
    """Map a compiled function over batches; one computes while the next is read, in bounded memory.

    Args:
      function: takes variables and a batch.
      variables: a tree of arrays.
      inputs: batches whose first axis all devices can share evenly.
      local: the devices of this process.

    Yields:
      The function's output for each batch, in order.
    """
    variables = local.replicate(variables)
    running: Any = None
    for batch in inputs:
        following = function(variables, local.shard(batch))
        if running is not None:
            yield running
        running = following
    if running is not None:
        yield running
