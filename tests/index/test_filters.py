"""Filters are parsed as written, whatever the names; an error says where the text goes wrong."""

import contextlib

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


@given(FILTERS)
def test_round_trip(parsed):
    assert parse(to_text(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("label=cat", Label("cat")),
        ("  label = cat  ", Label("cat")),
        ("label!=cat", Not(Label("cat"))),
        ("path=/a/b.jpg", IdPattern("/a/b.jpg")),
        ("label=and-so-on", Label("and-so-on")),
        ("label='and'", Label("and")),
        ("not not label=a", Not(Not(Label("a")))),
        ("label=a or label=b and label=c", Or((Label("a"), And((Label("b"), Label("c")))))),
        ("(label=a or label=b) and label=c", And((Or((Label("a"), Label("b"))), Label("c")))),
        ("not label=a and label=b", And((Not(Label("a")), Label("b")))),
        ("label=a and label=b and label=c", And((Label("a"), Label("b"), Label("c")))),
    ],
)
def test_precedence(text, parsed):
    """`not` before `and` before `or`; spaces are ignored; a quoted name may be and, or, not."""
    assert parse(text) == parsed


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
    """No text overflows Python's stack."""
    assert parse("(" * 40 + "label=a" + ")" * 40) == Label("a")
    for text in ("(" * 60 + "label=a" + ")" * 60, "not " * 1_000 + "label=a"):
        with pytest.raises(InputError, match="more than 50 levels"):
            parse(text)
    with pytest.raises(InputError, match="at most 10,000"):
        parse("label=" + "a" * 10_000)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text):
    """No other exception than InputError is raised."""
    with contextlib.suppress(InputError):
        assert parse(text)
