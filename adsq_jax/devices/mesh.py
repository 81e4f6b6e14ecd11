"""Devices along one axis of a mesh, and their human-readable description."""

import platform
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from adsq_jax.devices import processes
from adsq_jax.devices.host import cores

AXIS = "devices"


def describe(device: jax.Device, count: int) -> str:
    """Describe `count` devices like this one: `2 x cpu (x86_64, 2 cores)`."""
    several = f", {processes.count()} processes" if processes.count() > 1 else ""
    return f"{count} x {device.device_kind} ({platform.machine()}, {cores()} cores{several})"


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Make a mesh of devices with the one axis AXIS."""
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
