"""An index that names other places for its files is refused before LanceDB asks there with the user's credentials."""

import struct

import numpy as np
import pytest
from support import engines

from adsq_jax.errors import InputError
from adsq_jax.index import Item, table_manifests


def filled(folder):
    engine = engines.embedded(folder)
    with engine.create(bits=8) as opened:
        opened.add([Item(f"/{k}") for k in range(3)], np.zeros((3, 1), np.uint8))
    return engine, sorted((folder / "index" / "codes.lance" / "_versions").glob("*.manifest"))


def with_field(content, field):
    """A manifest's file with a field more."""
    start, version = struct.unpack("<QI", content[-16:-4])
    (length,) = struct.unpack("<I", content[start : start + 4])
    message = content[start + 4 : start + 4 + length] + field
    return content[:start] + struct.pack("<I", len(message)) + message + struct.pack("<QI", start, version) + b"LANC"


def test_other_places_are_refused(tmp_path):
    """In any version, when the index is opened and when it is refreshed; what LanceDB itself writes is not."""
    engine, manifests = filled(tmp_path)
    place = b"\x08\x01\x22\x0fs3://bucket/x/y"  # number 1, and a path
    for path in manifests:
        content = path.read_bytes()
        assert not table_manifests.has_other_places(content)
        with engine.open() as opened:
            path.write_bytes(with_field(content, b"\x92\x01" + bytes([len(place)]) + place))
            with pytest.raises(InputError, match=r"names other places for the index's files, and isn't opened"):
                engine.open()
        path.write_bytes(with_field(content, b"\xfa\x01\x03abc"))  # a field 31, of nothing that is known
        assert not table_manifests.has_other_places(path.read_bytes())
        path.write_bytes(content)
    with engine.open() as opened:
        assert opened.count() == 3
        newest = engine.create(bits=8)
        with newest:
            newest.add([Item("/new")], np.zeros((1, 1), np.uint8))
        path = next(path for path in (tmp_path / "index").rglob("*.manifest") if path not in manifests)
        path.write_bytes(with_field(path.read_bytes(), b"\x92\x01" + bytes([len(place)]) + place))
        with pytest.raises(InputError, match="names other places"):
            opened.refresh()


def test_a_catalog_beside_the_table_is_refused(tmp_path):
    """LanceDB would look there for where the table lies."""
    engine, _ = filled(tmp_path)
    for make in ((tmp_path / "index" / "__manifest").mkdir, lambda: (tmp_path / "index" / "__manifest").symlink_to("/nowhere")):
        make()
        for use in (engine.open, lambda: engine.create(bits=8)):
            with pytest.raises(InputError, match="__manifest"):
                use()
        path = tmp_path / "index" / "__manifest"
        path.unlink() if path.is_symlink() else path.rmdir()
    with engine.open() as opened:
        assert opened.count() == 3


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda x: b"", lambda x: x[:-1], lambda x: x[:20] + x[-16:], lambda x: bytes(16), lambda x: b"LANC"),
        lambda x: x[:-16] + struct.pack("<QI", 2**63, 0) + b"LANC",
        lambda x: with_field(x, b"\x0b"),  # a group
        lambda x: with_field(x, b"\xff" * 11),
        lambda x: with_field(x, b"\xfa\x01\xff\xff\x03"),  # longer than the message
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line(tmp_path, damage):
    engine, manifests = filled(tmp_path)
    manifests[0].write_bytes(damage(manifests[0].read_bytes()))
    with pytest.raises(InputError) as raised:
        engine.open()
    assert "\n" not in str(raised.value)
