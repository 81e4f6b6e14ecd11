"""Pages of HTML: whole, of themselves, and every text in them is text."""

import base64
import html.parser
import io

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from adsq_jax.inference import html_page

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onload='alert(1)", "&lt;b&gt;", "</style></figure>")
BLACK = np.zeros((40, 20, 3), np.uint8)


class Seen(html.parser.HTMLParser):
    """What a reader of the page makes of it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def page_of(text):
    figures = [
        html_page.picture(BLACK, name=text, lines=[text], mark="right"),
        html_page.picture(None, name=text, lines=[text], mark=""),
    ]
    parts = [html_page.row(figures, heading=text), html_page.table([(text, text)]), html_page.paragraph(text)]
    parts.append(html_page.plot(b"png", heading=text, note=text))
    return html_page.document(text, parts).decode()


@pytest.mark.parametrize("text", EVIL)
def test_texts_are_texts(text):
    """No tag and no attribute comes of a name; what is read is the name."""
    plain, evil = Seen(page_of("name")), Seen(page_of(text))
    assert evil.tags == plain.tags
    assert [name for name, _ in evil.attributes] == [name for name, _ in plain.attributes]
    names = 2 if "/" in text else 0  # of which what follows the last / is shown
    assert evil.text.count(text) == plain.text.count("name") - names


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(lambda text: "/" not in text and text.strip())
)
def test_any_text_is_shown_as_it_is(text):
    assert Seen(html_page.table([("name", text)])).text[1] == text


def test_nothing_is_asked_of_others():
    """No script, no link, no address: pictures are in the page."""
    found = Seen(page_of("name"))
    assert not {"script", "link", "iframe", "object", "base"} & set(found.tags)
    sources = [value for name, value in found.attributes if name in ("src", "href")]
    assert sources
    assert all(value.startswith("data:image/") for value in sources)
    assert b"url(" not in html_page.document("x", [])
    assert b"@import" not in html_page.document("x", [])


def test_a_picture_is_small():
    """A thumbnail of 160 pixels at most, of the picture's colours and proportions, whatever its size."""
    large = np.zeros((900, 600, 3), np.uint8)
    large[:] = (200, 30, 60)
    source = next(
        value for name, value in Seen(html_page.picture(large, name="a", lines=[], mark="")).attributes if name == "src"
    )
    shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert shown.size == (107, 160)
    assert np.abs(np.asarray(shown).astype(int) - (200, 30, 60)).max() < 6


@pytest.mark.parametrize(("mark", "sign"), [("right", "✓"), ("wrong", "✗"), ("", None)])
def test_marks_are_told_by_signs_too(mark, sign):
    text = "".join(Seen(html_page.picture(BLACK, name="a", lines=[], mark=mark)).text)
    assert (sign in text) if sign else not set("✓✗") & set(text)


def test_another_mark():
    with pytest.raises(KeyError):
        html_page.picture(BLACK, name="a", lines=[], mark="good")
