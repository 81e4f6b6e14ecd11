"""What connecting to other processes leaves behind."""

import threading

from adsq_jax.devices import processes


def test_alone_nothing_waits_for_others():
    """Without a cluster, the timer that ends a process whose others don't come is off at once."""
    processes.connect(coordinator=None, processes=None, process=None)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(timeout=10)  # one that is off ends in a moment
            assert not thread.is_alive()
