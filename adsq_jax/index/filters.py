"""Filters: which items a search looks at, as in `label=cat and not path=*/drafts/*`. Each engine translates them."""

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from adsq_jax.errors import InputError

_TOKEN = re.compile(r"""\s*(?:(?P<sign>!=|=|\(|\))|"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<word>[^\s()=!"']+))""")
# Whoever writes a filter, perhaps a stranger, decides what it costs: each level takes a part of the engine's stack, and each
# star of a path makes the engine try more.
MAX_LENGTH = 4_096  # characters, about the longest path
MAX_DEPTH = 20  # nested parentheses
MAX_STARS = 16  # of a path
MAX_SECONDS = 10.0  # that an engine looks for the items that a filter selects: others wait for the same index
_EXPECTED = "expected label=NAME, label!=NAME, path=PATTERN or path!=PATTERN (* stands for any text), joined by and, or, not"


class FilterError(InputError):
    """A filter that can't be read, or that costs too much."""


class Label(NamedTuple):
    """Items with a label."""

    name: str


class IdPattern(NamedTuple):
    """Items whose id matches a pattern, where * stands for any text."""

    pattern: str

    @property
    def parts(self) -> list[str]:
        """The texts between the stars of the pattern; several stars in a row are one."""
        return re.split(r"\*+", self.pattern)

    def matches(self, name: str) -> bool:
        """Return whether an id matches, in a time that grows with its length alone: no part is ever tried at two places."""
        first, *rest = self.parts
        if not rest:
            return name == first
        *middle, last = rest
        start, end = len(first), len(name) - len(last)
        if start > end or not (name.startswith(first) and name.endswith(last)):
            return False
        for part in middle:
            place = name.find(part, start, end)
            if place < 0:
                return False
            start = place + len(part)
        return True


class Not(NamedTuple):
    """Items that a filter doesn't select."""

    inner: "Filter"


class And(NamedTuple):
    """Items that all filters select."""

    parts: "tuple[Filter, ...]"


class Or(NamedTuple):
    """Items that at least one filter selects."""

    parts: "tuple[Filter, ...]"


Filter = Label | IdPattern | Not | And | Or  # which items of an index to take; `parse` makes one of a text


def parse(text: str) -> Filter:
    """Parse a filter.

    `not` binds tighter than `and`, and `and` tighter than `or`; parentheses group. Quote a value with spaces, or one that is
    and, or, not; both kinds of quotes work. The result is as flat as it can be: `not` stands before a label or a path alone,
    and no `and` is directly inside an `and`, no `or` inside an `or`.

    Args:
      text: for instance `label=cat`, `label="polar bear" or label=seal`, `(label=cat or label=dog) and path!=/old/*`.

    Returns:
      The filter.

    Raises:
      FilterError: the text isn't a filter, and the message shows where; or it has more than MAX_LENGTH characters, MAX_DEPTH
        levels, or MAX_STARS in a path.

    Source: this project.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(f"expected a filter of at most {MAX_LENGTH:,} characters, got {len(text):,}; fix: use a * in a path")
    if not is_text(text):
        raise FilterError(f"the filter {text!r:.100} isn't UTF-8: {_EXPECTED}")
    parser = _Parser(text)
    parsed = parser.disjunction(0)
    if parser.kind is not None:
        parser.fail()
    return parsed


def of_label(name: str) -> str | None:
    """Return the text of the filter for a label, as `parse` reads it; None for "" and for a label with both kinds of quotes."""
    mark = "'" if '"' in name else '"'
    return f"label={mark}{name}{mark}" if name and mark not in name else None


def too_slow() -> FilterError:
    """Return the error for a filter that takes more than MAX_SECONDS."""
    return FilterError(f"the filter takes more than {MAX_SECONDS:g} seconds; fix: use fewer paths with stars, or labels")


def no_filter(where: object) -> FilterError:
    """Return the error for what isn't a filter."""
    return FilterError(f"where={where!r:.100}: expected a filter, as index.parse makes it of text")


def is_text(name: str) -> bool:
    """Return whether a name is valid UTF-8, so that an index can store it; names of files may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Parser:
    """Recursive descent; `kind` and `value` describe the next token, and `kind` is None at the end."""

    def __init__(self, text: str):
        self._text, self._end = text, 0
        self._advance()

    def _advance(self) -> None:
        self._start = self._end
        token = _TOKEN.match(self._text, self._start)
        self.kind, self.value = (token.lastgroup, token[token.lastgroup or 0]) if token else (None, "")
        self._end = token.end() if token else self._start
        if token is None and self._text[self._start :].strip():
            self.fail()

    def fail(self) -> NoReturn:
        """Raise an error that shows where the text goes wrong."""
        rest = self._text[self._start :].strip()
        where = f"at {rest[:40]!r}" if rest else "at its end"
        raise FilterError(f"the filter {self._text[:100]!r} can't be read {where}: {_EXPECTED}")

    def _accept(self, kind: str, *values: str) -> bool:
        """Advance if the next token is one of these."""
        accepted = self.kind == kind and self.value in values
        if accepted:
            self._advance()
        return accepted

    def disjunction(self, depth: int) -> Filter:
        """Parse `a or b or ...`, where each part may be `c and d and ...`."""
        parts = [self._conjunction(depth)]
        while self._accept("word", "or"):
            parts.append(self._conjunction(depth))
        return _join(Or, parts)

    def _conjunction(self, depth: int) -> Filter:
        parts = [self._factor(depth)]
        while self._accept("word", "and"):
            parts.append(self._factor(depth))
        return _join(And, parts)

    def _factor(self, depth: int) -> Filter:
        negated = False
        while self._accept("word", "not"):
            negated = not negated
        if not self._accept("sign", "("):
            factor = self._term()
        elif depth == MAX_DEPTH:
            raise FilterError(f"the filter {self._text[:100]!r} has more than {MAX_DEPTH} levels; fix: use fewer parentheses")
        else:
            factor = self.disjunction(depth + 1)
            if not self._accept("sign", ")"):
                self.fail()
        return _negate(factor) if negated else factor

    def _term(self) -> Filter:
        kind = Label if self.value == "label" else IdPattern
        if not self._accept("word", "label", "path"):
            self.fail()
        negated = self._accept("sign", "!=")
        if not negated and not self._accept("sign", "="):
            self.fail()
        value = self.value
        if self.kind in (None, "sign") or not value or (self.kind == "word" and value in ("and", "or", "not")):
            self.fail()
        term = kind(value)
        if isinstance(term, IdPattern) and len(term.parts) > MAX_STARS + 1:
            raise FilterError(f"the path {value[:100]!r} has more than {MAX_STARS} stars; fix: use fewer")
        self._advance()
        return Not(term) if negated else term


def _join(kind: type[And] | type[Or], parts: Sequence[Filter]) -> Filter:
    """Join filters by `and` or `or`; those that are joined in the same way become part of the whole."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, And | Or) and type(part) is kind else (part,))]
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def _negate(given: Filter) -> Filter:
    """Return the filter that selects all other items, with `not` before terms alone."""
    match given:
        case Not(inner):
            return inner
        case And(parts):
            return _join(Or, [_negate(part) for part in parts])
        case Or(parts):
            return _join(And, [_negate(part) for part in parts])
        case _:
            return Not(given)
