"""Read the comments of Python source by what they explain, so that a help text says what the source says."""

import ast
import io
import tokenize
from collections.abc import Iterator


def of_assignments(source: str, *, name: str) -> dict[str, str]:
    """Return the comments of assignments to the attributes of a variable.

    Args:
      source: of a module or a function.
      name: the variable: with "config", `config.data.reader = "files"  # who reads` gives {"data.reader": "who reads"}.

    Returns:
      The comment on the lines of each assignment, after those on the lines above it; "" where there is none. In the order of
      the source.
    """
    comments = Comments(source)
    found: dict[str, str] = {}
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    for node in sorted(nodes, key=lambda node: node.lineno):
        if isinstance(node.targets[0], ast.Attribute):
            first, _, key = ast.unparse(node.targets[0]).partition(".")
            if first == name:
                found[key] = comments.of(node.lineno, node.end_lineno or node.lineno)
    return found


def of_dict(source: str, *, name: str) -> dict[str, str]:
    """Return the comments of the entries of a dict that a module assigns to a name.

    Args:
      source: of the module.
      name: the name, which stands alone on the left.

    Returns:
      The comment of each entry by its key; of a dict inside, by keys with dots. Where a dict is on one line, its comment is
      that of the whole dict: of "", or of the dict's own key.
    """
    comments = Comments(source)
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if [target.id for target in targets if isinstance(target, ast.Name)] != [name]:
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            return dict(_entries(node.value, comments, ""))
    return {}


def _entries(node: ast.Dict, comments: "Comments", prefix: str) -> Iterator[tuple[str, str]]:
    if node.lineno == node.end_lineno:
        yield prefix.removesuffix("."), comments.of(node.lineno, node.lineno)
        return
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant):
            continue
        if isinstance(value, ast.Dict):
            yield from _entries(value, comments, f"{prefix}{key.value!s}.")
        else:
            yield f"{prefix}{key.value!s}", comments.of(key.lineno, value.end_lineno or key.lineno)


class Comments:
    """The comments of a source, by line."""

    def __init__(self, source: str):
        self._by_line: dict[int, str] = {}
        self._alone: set[int] = set()  # lines that hold nothing else
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                self._by_line[token.start[0]] = token.string.lstrip("# ")
                if token.line.lstrip().startswith("#"):
                    self._alone.add(token.start[0])

    def of(self, first: int, last: int) -> str:
        """Return the comments on lines `first` to `last`, after those that stand alone above them."""
        while first - 1 in self._alone:
            first -= 1
        return " ".join(self._by_line[line] for line in range(first, last + 1) if line in self._by_line)
