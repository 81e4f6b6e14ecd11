"""Check a data set, and write the manifest of its split: `adsq data --config=digits --out=DIR`."""

from collections.abc import Sequence
from functools import partial

from ml_collections import ConfigDict

from adsq_jax import command_line, config_check, storage
from adsq_jax import config as config_module
from adsq_jax.data import preparation
from adsq_jax.devices import host
from adsq_jax.errors import InputError


def main(arguments: Sequence[str]) -> None:
    """Read the flags, check the data set, and write or compare its manifest."""
    flags = command_line.Flags(arguments, description=__doc__)
    describe = partial(config_module.help_text, sections=["data"])
    flags.config("config", "A config by its name, or FILE.py, as for adsq train.", describe_keys=describe)
    flags.text("out", "A folder for manifest.json and contact_sheet.png; a manifest of another split is not overwritten.")
    flags.text("verify", "A manifest.json to compare the split with; nothing is written.")
    flags.boolean("read_images", "Read and decode every image; --noread_images only looks for missing files.", default=True)
    given = flags.parse()
    if (
        not isinstance(given.config, ConfigDict)
        or (given.out is None) == (given.verify is None)
        or "" in (given.out, given.verify)
    ):
        raise InputError(
            "give --config=NAME or --config=FILE.py, and --out=DIR to write a manifest or --verify=FILE to compare with one"
        )
    config_check.check(given.config)
    preparation.prepare(
        config_module.data_settings(given.config),
        out=None if given.out is None else storage.path(given.out),
        verify=None if given.verify is None else storage.path(given.verify),
        read_images=given.read_images,
        threads=host.reading_threads(given.config.data.threads),
    )


if __name__ == "__main__":
    command_line.run(main)
