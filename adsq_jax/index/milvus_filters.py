"""Milvus's filter expressions: a filter translated, ids listed, texts quoted."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from adsq_jax.index import filters
from adsq_jax.index.filters import Filter

_ALL, _NONE = '(id != "")', '(id == "")'


class Translator:
    """Translates filters; asks the server for ids where its expressions can't match a pattern."""

    def __init__(
        self,
        *,
        count: Callable[[str], int],
        ids: Callable[[str], Iterable[str]],
        max_compared: int = 1_000_000,
        max_listed: int = 100_000,
    ):
        """Take functions that ask the server, and limits.

        Args:
          count: counts the items of an expression.
          ids: yields the ids that begin with a text.
          max_compared: the most ids that are compared with a pattern in this process.
          max_listed: the most ids in one expression.
        """
        self._count, self._ids = count, ids
        self._max_compared, self._max_listed = max_compared, max_listed
        self._deadline = time.monotonic() + filters.MAX_SECONDS

    def translate(self, where: Filter) -> str:
        """Return a filter as an expression; raise `FilterError` for a path pattern that would take too long."""
        match where:
            case filters.Label(name):
                return f"array_contains(labels, {quote(name)})"
            case filters.IdPattern() as path:
                return self._translate_path(path)
            case filters.Not(inner):
                return f"(not {self.translate(inner)})"
            case filters.And(parts):
                return "(" + " and ".join(map(self.translate, parts)) + ")"
            case filters.Or(parts):
                return "(" + " or ".join(map(self.translate, parts)) + ")"
            case _:
                raise filters.no_filter(where)

    def _translate_path(self, path: filters.IdPattern) -> str:
        first, *rest = path.parts
        if not rest:
            return f"(id == {quote(first)})"
        if not any(rest):  # stars at the end alone
            return id_starts_with(first) or _ALL
        return self._list_matches(path)

    def _list_matches(self, path: filters.IdPattern) -> str:
        """List the ids that match, or those that don't if they are fewer: Milvus 2.3 itself compares only prefixes."""
        prefix = path.parts[0]
        candidates = id_starts_with(prefix)
        count = self._count(candidates)
        if count > self._max_compared:
            raise filters.FilterError(
                f"path={path.pattern} is compared with {count:,} paths, expected at most {self._max_compared:,}; fix: write "
                "more before its first *, or use label="
            )
        matches, others = list[str](), list[str]()
        for name in self._ids(prefix):
            if time.monotonic() > self._deadline:
                raise filters.too_slow()
            (matches if path.matches(name) else others).append(name)
        listed = min(matches, others, key=len)
        if len(listed) > self._max_listed:
            raise filters.FilterError(
                f"path={path.pattern} selects {len(matches):,} items and leaves out {len(others):,}, expected one of them to "
                f"be at most {self._max_listed:,}; fix: write more before its first *, or use label="
            )
        if listed is matches:
            return f"({one_of('id', matches)})" if matches else _NONE
        return f"({candidates or _ALL} and not ({one_of('id', others)}))" if others else candidates or _ALL


def one_of(field: str, texts: Sequence[str]) -> str:
    """Return the expression for items whose field, as "id", has one of these texts."""
    return f"{field} in [{', '.join(map(quote, texts))}]"


def id_starts_with(prefix: str) -> str:
    """Return the expression for ids that begin with a text, as a range; empty for all ids.

    Milvus orders texts by their UTF-8 bytes, which is the order of their characters.
    """
    kept = prefix.rstrip(chr(sys.maxunicode))
    if not kept:
        return f"(id >= {quote(prefix)})" if prefix else ""
    following = ord(kept[-1]) + 1
    end = kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # UTF-8 has no surrogates, 0xD800 to 0xDFFF
    return f"(id >= {quote(prefix)} and id < {quote(end)})"


def quote(text: str) -> str:
    """Return a text as a literal."""
    return json.dumps(text, ensure_ascii=False)
