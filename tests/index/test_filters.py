"""Filters are parsed as written, whatever the names; an error says where the text goes wrong."""

import contextlib
import re
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from adsq_jax.errors import InputError
from adsq_jax.index import parse
from adsq_jax.index.filters import And, IdPattern, Label, Not, Or

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda text: not {"'", '"'} <= set(text)
)
TERMS = st.one_of(TEXTS.map(Label), TEXTS.map(IdPattern))


def several(kind):
    return lambda inner: st.lists(inner, min_size=2, max_size=3).map(lambda parts: kind(tuple(parts)))


FILTERS = st.recursive(TERMS, lambda inner: st.one_of(inner.map(Not), several(And)(inner), several(Or)(inner)), max_leaves=8)


def to_text(parsed):
    """Write a filter as text, with parentheses everywhere."""
    match parsed:
        case Label(name):
            return f"label={quote(name)}"
        case IdPattern(pattern):
            return f"path={quote(pattern)}"
        case Not(of):
            return f"not ({to_text(of)})"
        case And(of):
            return " and ".join(f"({to_text(one)})" for one in of)
        case Or(of):
            return " or ".join(f"({to_text(one)})" for one in of)


def quote(text):
    return f"'{text}'" if '"' in text else f'"{text}"'


def selects(parsed, name, labels):
    """Say whether a filter selects an item; a pattern is tried by a regular expression."""
    match parsed:
        case Label(label):
            return label in labels
        case IdPattern(pattern):
            return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL))
        case Not(inner):
            return not selects(inner, name, labels)
        case And(parts):
            return all(selects(part, name, labels) for part in parts)
        case Or(parts):
            return any(selects(part, name, labels) for part in parts)


def terms_of(parsed):
    match parsed:
        case Not(inner):
            return terms_of(inner)
        case And(parts) | Or(parts):
            return [term for part in parts for term in terms_of(part)]
        case _:
            return [parsed]


def is_flat(parsed):
    """Say whether `not` stands before terms alone, and nothing is directly inside its own kind."""
    match parsed:
        case Not(inner):
            return isinstance(inner, Label | IdPattern)
        case And(parts) | Or(parts):
            return all(type(part) is not type(parsed) and is_flat(part) for part in parts)
        case _:
            return True


@given(FILTERS, st.data())
def test_what_is_parsed_selects_the_same(written, data):
    """The parsed filter is flat, has the same terms, and selects the same items as the one that was written."""
    parsed, terms = parse(to_text(written)), terms_of(written)
    assert is_flat(parsed)
    assert terms_of(parsed) == terms
    for _ in range(4):  # items that some of the terms select
        labels = {term.name for term in terms if isinstance(term, Label) and data.draw(st.booleans())}
        patterns = [term.pattern for term in terms if isinstance(term, IdPattern)]
        name = data.draw(st.sampled_from(patterns)).replace("*", data.draw(TEXTS)) if patterns else ""
        assert selects(parsed, name, labels) == selects(written, name, labels)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("label=cat", Label("cat")),
        ("  label = cat  ", Label("cat")),
        ("label!=cat", Not(Label("cat"))),
        ("path=/a/b.jpg", IdPattern("/a/b.jpg")),
        ("label=and-so-on", Label("and-so-on")),
        ("label='and'", Label("and")),
        ("not not label=a", Label("a")),
        ("not " * 1_001 + "label=a", Not(Label("a"))),
        ("not not label!=a", Not(Label("a"))),
        ("not (not (label=a or label=b) and label=c)", Or((Label("a"), Label("b"), Not(Label("c"))))),
        ("(label=a and (label=b and label=c))", And((Label("a"), Label("b"), Label("c")))),
        ("label=a or label=b and label=c", Or((Label("a"), And((Label("b"), Label("c")))))),
        ("(label=a or label=b) and label=c", And((Or((Label("a"), Label("b"))), Label("c")))),
        ("not label=a and label=b", And((Not(Label("a")), Label("b")))),
        ("label=a and label=b and label=c", And((Label("a"), Label("b"), Label("c")))),
    ],
)
def test_precedence(text, parsed):
    """`not` before `and` before `or`; spaces are ignored; a quoted name may be and, or, not; repeated `not` cancel."""
    assert repr(parse(text)) == repr(parsed)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "at its end"),
        ("   ", "at its end"),
        ("label", "at its end"),
        ("label=", "at its end"),
        ("label==cat", "'=cat'"),
        ("label cat", "'cat'"),
        ("colour=red", "'colour=red'"),
        ("label=cat and", "at its end"),
        ("and label=cat", "'and label=cat'"),
        ("label=cat label=dog", "'label=dog'"),
        ("label=polar bear", "'bear'"),
        ("label=and", "'and'"),
        ("(label=cat", "at its end"),
        ("label=cat)", "')'"),
        ("()", "')'"),
        ("label='cat", '"\'cat"'),
        ("label=''", "\"''\""),
        ("label<cat", "'label<cat'"),
        ("1=1; drop table codes", "'1=1; drop table codes'"),
        ("label=a or 1=1", "'1=1'"),
    ],
)
def test_errors(text, where):
    """One line says where it goes wrong, and what was expected."""
    with pytest.raises(InputError, match="expected label=NAME") as raised:
        parse(text)
    assert where in str(raised.value)
    assert "\n" not in str(raised.value)


def test_too_deep_and_too_long():
    """No text overflows Python's stack or an engine's, or makes a pattern that takes long to try."""
    assert parse("(" * 20 + "label=a" + ")" * 20) == Label("a")
    assert parse("not (" * 20 + "label=a" + ")" * 20) == Label("a")
    for text in ("(" * 21 + "label=a" + ")" * 21, "(" * 4_000):
        with pytest.raises(InputError, match=r"the filter .* has more than 20 levels; fix: use fewer"):
            parse(text)
    with pytest.raises(InputError, match="at most 4,096"):
        parse("label=" + "a" * 4_096)
    assert parse("path=" + "*a" * 16)
    assert parse(f"path={'*' * 4_000}").parts == ["", ""]
    with pytest.raises(InputError, match=r"the path .* has more than 16 stars; fix: use fewer"):
        parse("path=" + "*a" * 17)


PARTS = st.text("ab*\n", max_size=8)


@given(PARTS, st.text("ab\n", max_size=8))
def test_patterns_match_as_stars_say(pattern, name):
    """A star stands for any text, also none, and several in a row for one."""
    assert IdPattern(pattern).matches(name) == selects(IdPattern(pattern), name, ())


def test_a_pattern_is_tried_in_no_time():
    """A name that nearly matches at a million places is not tried at each."""
    pattern, name = IdPattern("*".join(["", *"a" * 16, "b"])), "a" * 4_000
    began = time.monotonic()
    assert not pattern.matches(name + "c")
    assert pattern.matches(name + "b")
    assert time.monotonic() - began < 0.1


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text):
    """No other exception than InputError is raised."""
    with contextlib.suppress(InputError):
        assert parse(text)
