"""The keys of a config on the command line: which one is wrong, and which was meant."""

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from adsq_jax.errors import nearest_key


def unknown(arguments: Sequence[str], *, flag: str, load: Callable[[str], Any]) -> str | None:
    """Return one line on the first key among a command's arguments that the config lacks; None if there is none, or no config.

    Args:
      arguments: of the command.
      flag: the name of the config's flag.
      load: returns the config that `FILE.py:ARGUMENT` stands for; may raise anything.
    """
    config = ConfigDict()
    with contextlib.suppress(Exception, SystemExit):  # a file that fails is reported elsewhere
        for argument, following in itertools.pairwise([*arguments, ""]):
            given, equals, value = argument.partition("=")
            if given in (f"-{flag}", f"--{flag}"):
                config = load(value if equals else following)
    keys = _keys(config) if isinstance(config, ConfigDict) else []
    for argument in arguments if keys else ():
        key = re.match(rf"--?(?:no)?{flag}\.([\w.]+)(?:=|$)", argument)
        if key is not None and not _is_key(key[1], config):
            hint = _key_hint(key[1], keys, config, flag=f"--{flag}")
            return f"{flag} has no key {key[1]!r}{hint}; fix: --help lists all keys"
    return None


def _keys(config: ConfigDict, prefix: str = "") -> list[str]:
    """Return the dotted key of each value, and of each section that is empty."""
    keys = []
    for key, value in config.items():
        keys += _keys(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) and value else [f"{prefix}{key}"]
    return keys


def _is_key(key: str, config: ConfigDict) -> bool:
    """Return whether a config has a value or a section of a dotted key."""
    section: Any = config
    for name in key.split("."):
        if not isinstance(section, ConfigDict) or name not in section:
            return False
        section = section[name]
    return True


def _key_hint(key: str, keys: list[str], config: ConfigDict, *, flag: str) -> str:
    """Return what to give instead of an unknown key, in brackets; "" if nothing is near."""
    parent, _, name = key.rpartition(".")
    if parent in keys and isinstance(
        functools.reduce(lambda section, part: section[part], parent.split("."), config), ConfigDict
    ):
        return f" (give {flag}.{parent}=\"{{'{name}': VALUE}}\")"
    near = nearest_key(key, keys)
    return "" if near is None else f" (did you mean {near!r}?)"
