"""Mend a page's HTML while the site is built: MathML for equations, no comments, figures and flags that stay on one line."""

import html
import re
from typing import Any

from latex2mathml import converter
from mkdocs.exceptions import PluginError

# What pymdownx.arithmatex leaves of an equation.
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"(?<!<pre>)(?<!</span>)<code>([^<]+)</code>")
_TEXT = re.compile(r"(?<=>)[^<>]+(?=<)")
_HYPHENATED = re.compile(r"\b(?:\d{4}-\d\d-\d\d|[A-Z][\w-]*-\d\w*)\b")  # a date, or a name such as CIFAR-10
_COMMA = re.compile(r",(?=\w)")  # a long list breaks here
_WHOLE = r'<span class="whole">\g<0></span>'
_FLAG = re.compile(r"(?<![^\s\[=])--?\w[\w.]{0,38}=?")
# Where latex2mathml spaces otherwise than TeX: a sign after an opening bracket, a comma or a relation belongs to what follows;
# bars and the names of functions are no operators, and a function's name stands apart from other letters.
_CLOSING = {"&#x00029;", ")", "]", "&#x0005D;", "&#x0007D;", "}", "&#x0007C;", "&#x02016;"}
_SIGN = re.compile(r"(<mo[^>]*>([^<]+)</mo>)<mo>(&#x0002B;|&#x02212;)</mo>")
_BAR = re.compile(r'<mo stretchy="false">(&#x0007C;|&#x02016;)</mo>')
_FUNCTION = re.compile(r"<mo>([a-zA-Z]{2,})</mo>")
_BEFORE = re.compile(r"(</m(?:i|n|row|sub|sup|subsup|frac)>|&#x00029;</mo>)(?=<mi>[a-zA-Z]{2,}</mi>)")
_AFTER = re.compile(r"(<mi>[a-zA-Z]{2,}</mi>)(?=<m(?:i|n|sub|sup)>)")
_THIN = r'\1<mspace width="0.167em"/>'


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Return a page's HTML with MathML, without comments, such as hidden blocks, and with figures and flags kept whole."""

    def equation(found: re.Match[str]) -> str:
        try:
            return _mathml(html.unescape(found[2]).strip(), display="block" if found[1] == "div" else "inline")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: the equation {found[2]!r} can't be read ({error!r})") from error

    def code(found: re.Match[str]) -> str:
        return f"<code>{_FLAG.sub(_WHOLE, _COMMA.sub(',<wbr>', found[1]))}</code>"

    content = _EQUATION.sub(equation, _COMMENT.sub("", content))
    content = _CODE.sub(code, content.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"))
    return _TEXT.sub(lambda text: _HYPHENATED.sub(_WHOLE, text[0]), content)


def _mathml(equation: str, *, display: str) -> str:
    found = converter.convert(equation, display=display)
    unknown = re.search(r">(\\[a-zA-Z]+)<", found)
    if unknown:
        raise ValueError(f"{unknown[1]} is unknown")
    found = _SIGN.sub(lambda sign: sign[0] if sign[2] in _CLOSING else f'{sign[1]}<mo form="prefix">{sign[3]}</mo>', found)
    found = _BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', found)
    found = _FUNCTION.sub(r"<mi>\1</mi>", found)
    return _AFTER.sub(_THIN, _BEFORE.sub(_THIN, found))
