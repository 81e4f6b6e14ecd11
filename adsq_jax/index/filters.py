"""Which items a search looks at: `label = cat and not path = */drafts/*`. Engines translate what `parse` gives."""

import re
from typing import NamedTuple, NoReturn

from adsq_jax.errors import InputError

_TOKEN = re.compile(r"""\s*(?:(?P<sign>!=|=|\(|\))|"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<word>[^\s()=!"']+))""")
_DEEPEST = 50  # parentheses and nots in one another
_LONGEST = 10_000  # characters
_EXPECTED = "expected label=NAME, label!=NAME, path=PATTERN or path!=PATTERN (* stands for anything), joined by and, or, not"


class Label(NamedTuple):
    """Items with a label."""

    name: str


class Path(NamedTuple):
    """Items whose id has a form; * stands for any text."""

    pattern: str

    @property
    def parts(self) -> list[str]:
        """The pattern, taken apart at each *."""
        return self.pattern.split("*")


class Not(NamedTuple):
    """Items that another filter leaves out."""

    of: "Filter"


class Every(NamedTuple):
    """Items that all of several filters let through."""

    of: "tuple[Filter, ...]"


class Either(NamedTuple):
    """Items that one or more of several filters let through."""

    of: "tuple[Filter, ...]"


Filter = Label | Path | Not | Every | Either


def parse(text: str) -> Filter:
    """Reads a filter as people write it.

    `not` binds closer than `and`, and that closer than `or`; parentheses group. A value with spaces, or named and, or, not,
    stands in quotes of either kind.

    Args:
      text: for instance `label=cat`, `label="polar bear" or label=seal`, `(label=cat or label=dog) and path!=/old/*`.

    Returns:
      The filter.

    Raises:
      InputError: it can't be read as one; the text says where.

    Source: this project.
    """
    if len(text) > _LONGEST:
        raise InputError(f"a filter of {len(text):,} characters: expected at most {_LONGEST:,}; use a * in a path")
    if not is_text(text):
        raise InputError(f"the filter {text!r:.100} isn't UTF-8: {_EXPECTED}")
    parser = _Parser(text)
    found = parser.either(0)
    if parser.kind is not None:
        parser.refuse()
    return found


def is_text(name: str) -> bool:
    """Whether a name can be kept as UTF-8; names of files may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Parser:
    """Recursive descent over the text's tokens; `kind` and `value` are of the next one."""

    def __init__(self, text: str):
        self._text, self._end = text, 0
        self.kind: str | None = None
        self.value = ""
        self._advance()

    def _advance(self) -> None:
        self._start = self._end
        found = _TOKEN.match(self._text, self._end)
        if found is None:
            self.kind = None
            if self._text[self._end :].strip():
                self.refuse()
            return
        self._end = found.end()
        kind = found.lastgroup or ""
        self.kind, self.value = ("quoted" if kind in ("double", "single") else kind), found[kind]

    def refuse(self) -> NoReturn:
        """Says where the text goes wrong."""
        rest = self._text[self._start :].strip()
        where = f"at {rest[:40]!r}" if rest else "at its end"
        raise InputError(f"the filter {self._text[:100]!r} can't be read, {where}: {_EXPECTED}")

    def _is(self, kind: str, *values: str) -> bool:
        return self.kind == kind and self.value in values

    def _taken(self, kind: str, *values: str) -> bool:
        there = self._is(kind, *values)
        if there:
            self._advance()
        return there

    def either(self, depth: int) -> Filter:
        """a or b or ..."""
        several = [self._every(depth)]
        while self._taken("word", "or"):
            several.append(self._every(depth))
        return several[0] if len(several) == 1 else Either(tuple(several))

    def _every(self, depth: int) -> Filter:
        several = [self._one(depth)]
        while self._taken("word", "and"):
            several.append(self._one(depth))
        return several[0] if len(several) == 1 else Every(tuple(several))

    def _one(self, depth: int) -> Filter:
        if depth > _DEEPEST:
            raise InputError(f"the filter {self._text[:100]!r} has more than {_DEEPEST} levels: write it with less")
        if self._taken("word", "not"):
            return Not(self._one(depth + 1))
        if self._taken("sign", "("):
            found = self.either(depth + 1)
            if not self._taken("sign", ")"):
                self.refuse()
            return found
        return self._term()

    def _term(self) -> Filter:
        field = self.value
        if not self._taken("word", "label", "path"):
            self.refuse()
        differs = self._is("sign", "!=")
        if not self._taken("sign", "=", "!="):
            self.refuse()
        value = self.value
        if self.kind not in ("word", "quoted") or not value or (self.kind == "word" and value in ("and", "or", "not")):
            self.refuse()
        self._advance()
        term = Label(value) if field == "label" else Path(value)
        return Not(term) if differs else term
