"""Comments are read by what they explain: an assignment's, an entry's of a dict, those on the lines above."""

from adsq_jax.run import source_comments

FUNCTION = """
def make():
    config = ConfigDict()  # of no key
    config.name = "a # b"  # the name
    # above, on two
    # lines;
    config.data.reader = "files"  # behind

    # not above: a line is between

    config.long = (
        1,  # first
        2,
    )  # last
    other.name = 1  # of another
    config.bare = 2
    if True:
        config.inside = 3  # in a block
    return config  # the end
"""
MODULE = """
OTHER = {"a": 1}  # another
SETTINGS: dict = {  # of the opening line
    "rate": 0.5,  # how fast
    # above
    "bare": 1,
    "weights": {
        "loss": 1.0,  # lambda
        "rest": 0.0,
    },
    "line": {"x": 1, "y": 2},  # of both
}
"""


def test_assignments():
    """Each attribute of the variable has the comments on its lines and right above, in the order of the source."""
    assert list(source_comments.of_assignments(FUNCTION, name="config").items()) == [
        ("name", "the name"),
        ("data.reader", "above, on two lines; behind"),
        ("long", "first last"),
        ("bare", ""),
        ("inside", "in a block"),
    ]


def test_dicts():
    """Entries, those of dicts inside, and a dict on one line, whose comment is its own."""
    assert list(source_comments.of_dict(MODULE, name="SETTINGS").items()) == [
        ("rate", "how fast"),
        ("bare", "above"),
        ("weights.loss", "lambda"),
        ("weights.rest", ""),
        ("line", "of both"),
    ]
    assert source_comments.of_dict(MODULE, name="OTHER") == {"": "another"}
    assert source_comments.of_dict(MODULE, name="NONE") == {}
