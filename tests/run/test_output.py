"""Files that a command is told to write: what is there is kept, and what can't be written is found before the work."""

import pytest

from adsq_jax.errors import InputError
from adsq_jax.run import output


def test_a_new_file_is_tried_and_left_to_the_command(tmp_path):
    """Nothing stays of the trial, so that the same command can be given again; a file that is there is refused."""
    assert output.check_new_file(tmp_path / "hits.html", suffixes=(".html",)) == tmp_path / "hits.html"
    assert not list(tmp_path.iterdir())
    (tmp_path / "hits.html").write_text("old")
    with pytest.raises(InputError, match="there already"):
        output.check_new_file(tmp_path / "hits.html", suffixes=(".html",))
    assert (tmp_path / "hits.html").read_text() == "old"
