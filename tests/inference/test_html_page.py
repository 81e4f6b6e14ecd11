"""Pages of HTML need no other file, and every text in them is shown as text."""

import base64
import html.parser
import io
import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from adsq_jax.inference import html_page

EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onload='alert(1)", "&lt;b&gt;", "</style></figure>")
BLACK = np.zeros((40, 20, 3), np.uint8)


class Parsed(html.parser.HTMLParser):
    """The tags, attributes and texts of a page."""

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
    parts = [html_page.row(figures[0], figures, heading=text, note=text), html_page.paragraph(text), html_page.lead(text)]
    parts += [html_page.contents([text]), html_page.section(text), html_page.plot(b"png", heading=text, note=text)]
    parts.append(html_page.table([(text, text)], links={text: f"file:///{text}"}))
    return html_page.document(text, parts).decode()


@pytest.mark.parametrize("text", EVIL)
def test_texts_are_texts(text):
    """A name adds no tag and no attribute; a reader sees the name."""
    plain, evil = Parsed(page_of("name")), Parsed(page_of(text))
    assert evil.tags == plain.tags
    assert [name for name, _ in evil.attributes] == [name for name, _ in plain.attributes]
    names = 3 if "/" in text else 0  # captions show what follows the last /
    assert evil.text.count(text) == plain.text.count("name") - names


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(lambda text: "/" not in text and text.strip())
)
def test_any_text_is_shown_as_it_is(text):
    assert Parsed(html_page.table([("name", text)])).text[1] == text


def test_a_page_needs_nothing_else():
    """There is no script, and nothing that a browser fetches by itself: pictures are inside the page."""
    parsed = Parsed(page_of("name"))
    assert not {"script", "link", "iframe", "object", "base"} & set(parsed.tags)
    sources = [value for name, value in parsed.attributes if name in ("src", "srcset", "poster", "data")]
    assert sources
    assert all(value.startswith("data:image/") for value in sources)
    assert b"url(" not in html_page.document("x", [])
    assert b"@import" not in html_page.document("x", [])


def test_a_picture_is_small():
    """A large picture becomes a thumbnail of at most 240 pixels, with its colours and proportions."""
    large = np.zeros((900, 600, 3), np.uint8)
    large[:] = (200, 30, 60)
    source = next(
        value for name, value in Parsed(html_page.picture(large, name="a", lines=[], mark="")).attributes if name == "src"
    )
    shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert shown.size == (160, 240)
    assert np.abs(np.asarray(shown).astype(int) - (200, 30, 60)).max() < 6


@pytest.mark.parametrize(("side", "tiny"), [(8, True), (48, True), (49, False)])
def test_a_tiny_picture_keeps_its_pixels(side, tiny):
    """A picture of 8 pixels fills its frame as squares; a larger one is smoothed."""
    parsed = Parsed(html_page.picture(np.zeros((side, side, 3), np.uint8), name="a", lines=[], mark=""))
    assert (("class", "tiny") in parsed.attributes) == tiny
    assert "img.tiny { image-rendering: pixelated; }" in html_page.document("x", []).decode()


def test_a_picture_has_a_text_in_its_place():
    """Its file's name, for readers who don't see it."""
    parsed = Parsed(html_page.picture(BLACK, name="/a/<b>.png", lines=["query"], mark=""))
    assert ("alt", "<b>.png") in parsed.attributes


def test_a_page_has_colours_for_the_dark():
    """It says so to the browser, and has a second set of each colour that it names."""
    light, _, dark = html_page.document("x", []).decode().partition("@media (prefers-color-scheme: dark)")
    assert "color-scheme: light dark" in light
    assert set(re.findall(r"--\w+(?=: #)", light)) == set(re.findall(r"--\w+(?=: #)", dark)) != set()


def test_links_of_the_contents():
    """A link leads to the heading of the same name, whatever it has in it."""
    link = dict(Parsed(html_page.contents(['Worst  "queries"'])).attributes)["href"]
    assert link == "#" + dict(Parsed(html_page.section('Worst  "queries"')).attributes)["id"] == '#worst-"queries"'


@pytest.mark.parametrize(("mark", "sign"), [("right", "✓"), ("wrong", "✗"), ("", None)])
def test_marks_are_signs_too(mark, sign):
    text = "".join(Parsed(html_page.picture(BLACK, name="a", lines=[], mark=mark)).text)
    assert (sign in text) if sign else not set("✓✗") & set(text)


def test_another_mark():
    with pytest.raises(KeyError):
        html_page.picture(BLACK, name="a", lines=[], mark="good")
