"""The documentation's site: it builds without a warning, loads nothing from other hosts, and documents every public name."""

import html.parser
import importlib.util
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import markdown_it
import pytest
from mdit_py_plugins.admon import admon_plugin
from support.public_names import public_names

from adsq_jax import config as config_module
from adsq_jax import methods
from adsq_jax.__main__ import COMMANDS

markdown = pytest.importorskip("markdown", reason="the extra docs isn't installed")
pytest.importorskip("mkdocs", reason="the extra docs isn't installed")
ROOT = Path(__file__).parent.parent
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
OUTPUT_ONLY = {"canonical", "alternate", "next", "prev"}  # links that a browser doesn't load


class Page(html.parser.HTMLParser):
    """What a page holds: files that it loads, equations, comments, and its text."""

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.loads, self.comments, self.tags, self.text, self.ids = [], [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids.add(attrs.get("id"))
        if tag in LOADED and attrs.get(LOADED[tag]) and attrs.get("rel") not in OUTPUT_ONLY:
            self.loads.append(attrs[LOADED[tag]])

    def handle_comment(self, data):
        self.comments.append(data)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-6_000:]
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Each page of the site by its path."""
    return {str(path.relative_to(site)): Page(path.read_text()) for path in site.rglob("*.html")}


@pytest.mark.slow  # building the site takes about 20 seconds
def test_nothing_comes_from_other_hosts(site, pages):
    """Scripts, styles, pictures and fonts are files of the site, in pages and in style sheets."""
    assert len(pages) > 40
    for name, page in pages.items():
        assert page.loads, name
        assert not [place for place in page.loads if re.match(r"(https?:)?//", place)], name
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:@import\s|url\()\s*[\"']?(?:https?:)?//", path.read_text()), path


@pytest.mark.slow  # building the site takes about 20 seconds
def test_no_comment_and_no_equation_is_left(pages):
    """Hidden blocks are no part of the site; equations are MathML, and none is left as TeX."""
    for name, page in pages.items():
        assert not page.comments, name
        assert "arithmatex" not in page.source, name
    objective = pages["explanation/objective/index.html"]
    assert objective.tags.count("math") > 20
    assert "$" not in "".join(objective.text)


def mended(content):
    """The HTML of a page as docs/hooks/page_html.py mends it."""
    pytest.importorskip("latex2mathml", reason="the extra docs isn't installed")
    spec = importlib.util.spec_from_file_location("page_html", ROOT / "docs" / "hooks" / "page_html.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook.on_page_content(content, page=SimpleNamespace(file=SimpleNamespace(src_uri="page.md")))


def test_how_a_page_is_mended():
    """Signs are spaced as in TeX, code isn't taken for an equation, flags, names and figures stay whole, comments go."""
    prefix, infix = '<mo form="prefix">&#x02212;</mo>', "<mo>&#x02212;</mo>"
    assert prefix in mended(r'<span class="arithmatex">\([-1, 1]\)</span>')
    assert infix in mended(r'<span class="arithmatex">\(a - b\)</span>')
    assert infix in mended(r'<div class="arithmatex">\[|a| - b\]</div>')
    assert 'display="block"' in mended(r'<div class="arithmatex">\[a &lt; b\]</div>')
    assert mended("<p>a<!-- hidden bash\nls\n-->b</p>") == "<p>ab</p>"
    assert mended("<td>0.5 ± 0.1</td>") == "<td>0.5\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.1</td>"
    assert mended("<td>2026-11-30</td>") == '<td><span class="whole">2026-11-30</span></td>'
    assert mended("<code>adsq demo --port=1</code>") == '<code>adsq demo <span class="whole">--port=</span>1</code>'
    assert '[<span class="whole">--port=</span>1]' in mended("<code>adsq demo [--port=1]</code>")
    assert mended("<code>bits=1,2</code>") == "<code>bits=1,<wbr>2</code>"
    assert mended('<p title="CIFAR-10">CIFAR-10</p>') == '<p title="CIFAR-10"><span class="whole">CIFAR-10</span></p>'
    block = "<pre><span></span><code>adsq demo --port=1</code></pre>"
    assert mended(block) == block
    for wrong in (r"\left( x", r"\unknown x"):
        with pytest.raises(Exception, match=r"page\.md: the equation .* can't be read"):
            mended(rf'<span class="arithmatex">\({wrong}\)</span>')


class Nesting(html.parser.HTMLParser):
    """The blocks of a page, each with those around it."""

    def __init__(self, text):
        super().__init__()
        self.around, self.blocks = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("ul", "ol", "li", "pre", "blockquote", "h1", "h2", "h3"):
            self.around.append(tag)
            self.blocks.append("/".join(self.around))

    def handle_endtag(self, tag):
        if tag in self.around:
            del self.around[-1 - self.around[::-1].index(tag) :]


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: str(path.relative_to(ROOT)))
def test_lists_and_blocks_are_nested_as_written(path):
    """MkDocs nests lists and blocks as CommonMark does, which holds where what lies in a list is indented by four spaces."""
    text = re.sub(r"<!--.*?-->|\A---\n.*?\n---\n", "", path.read_text(), flags=re.DOTALL)
    extensions = ["admonition", "attr_list", "md_in_html", "tables", "pymdownx.highlight", "pymdownx.superfences"]
    settings = {"pymdownx.highlight": {"use_pygments": False}}
    built = markdown.markdown(text, extensions=extensions, extension_configs=settings)
    common = markdown_it.MarkdownIt("commonmark").enable("table").use(admon_plugin).render(text)
    if ":::" not in text:  # mkdocstrings's own
        assert Nesting(built).blocks == Nesting(common).blocks


@pytest.fixture(scope="module")
def inventory(site):
    """The names that the site documents, each with its kind and its place."""
    content = (site / "objects.inv").read_bytes()
    for _ in range(4):  # lines of the head
        content = content.partition(b"\n")[2]
    lines = [line.split() for line in zlib.decompress(content).decode().splitlines()]
    return {line[0]: (line[1], line[3].replace("$", line[0])) for line in lines}


@pytest.mark.slow  # building the site takes about 20 seconds
def test_every_public_name_is_on_the_site(site, pages, inventory):
    """Each name of an `__all__` has its place on a page, with an explanation."""
    names = list(public_names())
    assert len(names) > 100
    for package, name, _, own in names:
        kind, place = inventory.get(f"{package}.{name}") or inventory[own]
        if own and kind == "py:module":  # a file that is named as the function that it holds
            kind, place = inventory[own]
        page, _, anchor = place.partition("#")
        assert anchor in pages[f"{page}index.html"].ids, (package, name)


@pytest.mark.slow  # building the site takes about 20 seconds
def test_a_page_says_what_its_source_refers_to(pages):
    """Defaults are values, a base class's docstring is copied, returned values have types, lists nest, output is one block."""
    assert "k: int = 20" in "".join(pages["reference/api/commands/index.html"].text)
    devices = "".join(pages["reference/api/devices/index.html"].text)
    assert "See the base class" not in devices
    assert "Put a tree on the devices in the layout that a compiled step expects." in devices
    assert re.search(r"Measures\s+\S\s+The figures: measures.map", "".join(pages["reference/api/retrieval/index.html"].text))
    assert re.search(r"<p>an array of NumPy|<li>\s*an array of NumPy", pages["reference/api/data/index.html"].source)
    printed = "".join(pages["examples/search_pictures/index.html"].text)
    assert re.search(r"rerank=0: right .*\nrerank=100: right", printed)


@pytest.mark.slow  # building the site takes about 20 seconds
def test_names_in_the_navigation_are_short(pages):
    """A name in the navigation has at most four words."""
    links = re.findall(r'md-nav__link.*?md-ellipsis">(.*?)</span>', pages["404.html"].source, re.DOTALL)
    names = [" ".join(re.sub("<.*?>", "", link).split()) for link in links]
    assert len(names) > 40
    assert not [name for name in names if len(name.split()) > 4]


@pytest.mark.slow  # building the site takes about 20 seconds
def test_config_and_commands_are_complete(pages):
    """Every config key has its place, every method its settings, every command its flags."""
    config, commands = pages["reference/config/index.html"], pages["reference/commands/index.html"]

    def keys(tree, prefix=""):
        for name, value in tree.items():
            yield from keys(value, f"{prefix}{name}.") if hasattr(value, "items") and value else [f"{prefix}{name}"]

    assert set(keys(config_module.default())) <= config.ids
    assert {f"baseline-{name}" for name in methods.METHODS if name != "adsq"} <= config.ids
    assert COMMANDS.keys() <= commands.ids
    text = " ".join("".join(commands.text).split())
    for flag in ("--leave_self_out", "--rerank", "--read_images", "--cosine", "--remote_pictures", "--part"):
        assert flag in text, flag
