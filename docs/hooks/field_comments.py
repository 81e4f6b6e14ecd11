"""Document fields and constants by their comments in the source, and write what a signature or a docstring only refers to."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

from adsq_jax.run.source_comments import Comments

_SECTIONS = ("Args:", "Attributes:")
_SEE_BASE = "See the base class."
_COLON = re.compile(r"(^ *Returns:\n +)(?=[^\n]*: )", re.MULTILINE)
_LONGEST = 120  # characters of a constant's value


class FieldComments(griffe.Extension):
    """The comment behind `bits: int  # 1 to 256` becomes the description of `bits`."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add a list of a class's fields to its docstring, unless it has one."""
        fields = [member for member in cls.members.values() if _is_field(member)]
        if any(str(base) == "NamedTuple" for base in cls.bases):
            kind = griffe.ParameterKind.positional_or_keyword
            parameters = [
                griffe.Parameter(field.name, annotation=field.annotation, kind=kind, default=field.value) for field in fields
            ]
            cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters)))
        if not fields or cls.docstring is None or any(f"\n{name}" in cls.docstring.value for name in _SECTIONS):
            return
        comments = Comments(cls.module.source)
        lines = [f"  {field.name}: {_comment(field, comments)}" for field in fields]
        cls.docstring.value = "\n".join([cls.docstring.value, "", "Attributes:", *lines])

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take the comment of a constant as its docstring; leave out a value that would fill a page."""
        if attr.value is not None and len(str(attr.value)) > _LONGEST:
            attr.value = None
        if attr.docstring is None and attr.parent is not None and attr.parent.is_module and not attr.name.startswith("_"):
            text = _comment(attr, Comments(attr.module.source))
            if text:
                attr.docstring = griffe.Docstring(f"{text[0].upper()}{text[1:]}.", parent=attr)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Write constants that are defaults as their values, and copy docstrings that refer to the base class's."""
        for function in _functions(pkg):
            for parameter in function.parameters:
                parameter.default = _value(parameter.default, pkg)
            if function.docstring and function.returns:  # griffe takes what stands before a colon as the type
                function.docstring.value = _COLON.sub(rf"\g<1>{function.returns}: ", function.docstring.value)
            cls = function.parent
            if isinstance(cls, griffe.Class) and function.docstring and function.docstring.value == _SEE_BASE:
                bases = [base.members.get(function.name) for base in cls.resolved_bases]
                function.docstring = next((base.docstring for base in bases if base and base.docstring), function.docstring)


def _functions(of: griffe.Module | griffe.Class) -> Iterator[griffe.Function]:
    for member in of.members.values():
        if isinstance(member, griffe.Function):
            yield member
        elif isinstance(member, griffe.Module | griffe.Class):
            yield from _functions(member)


def _value(default: str | griffe.Expr | None, package: griffe.Module) -> str | griffe.Expr | None:
    """Return a constant's value where a default is a constant of the package that is a number or a string."""
    path = getattr(default, "canonical_path", "")
    try:
        constant = package.modules_collection[path] if path.startswith(f"{package.path}.") else None
    except KeyError:
        return default
    return constant.value if isinstance(constant, griffe.Attribute) and isinstance(constant.value, str) else default


def _is_field(member: griffe.Object | griffe.Alias) -> bool:
    """Return whether a member of a class is a field, and has no docstring of its own."""
    if not member.is_attribute or member.annotation is None or member.docstring is not None:
        return False
    return "property" not in member.labels and not member.name.startswith("_")


def _comment(attribute: griffe.Attribute, comments: Comments) -> str:
    return comments.of(attribute.lineno or 0, attribute.endlineno or 0)
