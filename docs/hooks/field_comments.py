"""Document fields and constants by their comments in the source, and give named tuples their signature."""

from typing import Any

import griffe

from adsq_jax.run.source_comments import Comments

_SECTIONS = ("Args:", "Attributes:")
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


def _is_field(member: griffe.Object | griffe.Alias) -> bool:
    """Return whether a member of a class is a field, and has no docstring of its own."""
    if not member.is_attribute or member.annotation is None or member.docstring is not None:
        return False
    return "property" not in member.labels and not member.name.startswith("_")


def _comment(attribute: griffe.Attribute, comments: Comments) -> str:
    return comments.of(attribute.lineno or 0, attribute.endlineno or 0)
