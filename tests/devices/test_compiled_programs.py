"""What commands compile is kept for the next one: in the user's cache folder, within bounds, and never against a setting."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from adsq_jax.devices import compiled_programs

_COMPILE = """
import sys, jax, jax.numpy as jnp
from adsq_jax.devices import compiled_programs
events = []
jax.monitoring.register_event_listener(lambda name, **more: events.append(name))
compiled_programs._LEAST_SECONDS = 0
compiled_programs.keep()
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((50, 50))).block_until_ready()
print(sum(name == "/jax/compilation_cache/cache_hits" for name in events))
"""


def hits(**environment):
    """Compile a function in a new process; return how many programs it found compiled."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    given = {name: str(value) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], env={**kept, **given}, capture_output=True, text=True, timeout=120, check=True
    )
    return int(done.stdout)


def test_the_second_process_compiles_nothing(tmp_path):
    """It finds what the first one has kept, in the folder of this JAX and this processor."""
    assert hits(XDG_CACHE_HOME=tmp_path) == 0
    kept = list((tmp_path / "adsq_jax" / "xla" / compiled_programs.key()).iterdir())
    assert kept
    assert hits(XDG_CACHE_HOME=tmp_path) > 0


@pytest.mark.parametrize("given", ["relative", "a file"])
def test_where_nothing_can_be_kept(tmp_path, given):
    """A folder that isn't absolute counts as none; one that can't be made is no error."""
    (tmp_path / "file").touch()
    place = {"relative": "here", "a file": tmp_path / "file"}[given]
    assert hits(XDG_CACHE_HOME=place) == 0
    assert not Path("here").exists()


def test_a_setting_of_jax_counts(monkeypatch, tmp_path):
    """These tests have one, which stays."""
    before = jax.config.jax_compilation_cache_dir
    assert before
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled_programs.keep()
    assert jax.config.jax_compilation_cache_dir == before


def test_the_oldest_go_first(tmp_path):
    """Of files in any folder, until the newer ones have at most so many bytes."""
    for age, name in enumerate(("new", "a/middle", "b/old")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        os.utime(path, (time.time() - 100 * age,) * 2)
    compiled_programs.prune(tmp_path, most_bytes=25)
    assert [(tmp_path / name).exists() for name in ("new", "a/middle", "b/old")] == [True, True, False]
    compiled_programs.prune(tmp_path / "none", most_bytes=0)
