"""The hits of a search equal those of a scan, and are shown as a table, a page and a sheet."""

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from adsq_jax import index
from adsq_jax.errors import InputError
from adsq_jax.inference import hits, pictures
from adsq_jax.inference.hits import Hit

EVIL = '<img src=x onerror="alert(1)">.png'


def places_of(folder):
    return pictures.allow([str(folder)], hint="only some are")


def nearest(location, model, queries, *, k=5, radius=None, where=None):
    with index.open_index(location) as opened:
        packed_codes = model.encode(queries, part="query", packed=True)
        return hits.search_codes(opened, packed_codes, None, k=k, radius=radius, where=where, rerank=hits.RERANK)


def test_the_nearest(filled):
    """Ranks, distances and labels of each query are those of a scan of all codes; the picture itself is at distance 0."""
    paths, model, location = filled
    codes = model.encode(paths)
    for query, some in zip(paths[::7], nearest(location, model, paths[::7], k=36), strict=True):
        distances = (codes != model.encode(query)).sum(axis=1)
        assert [hit.rank for hit in some] == [1 + int((distances < hit.distance).sum()) for hit in some]
        assert [hit.tied for hit in some] == [int((distances == hit.distance).sum()) - 1 for hit in some]
        assert [hit.distance for hit in some] == sorted(distances.tolist())
        assert {hit.id: hit.distance for hit in some} == dict(zip(paths, distances.tolist(), strict=True))
        assert all(hit.labels == (hit.id.split("/")[-2],) for hit in some)


def test_radius_and_filter(filled):
    """Queries can have different numbers of hits; one without hits has an empty list."""
    paths, model, location = filled
    results = nearest(location, model, [paths[0], paths[-1]], k=36, radius=0, where=index.parse("label=blue"))
    codes = model.encode(paths)
    for query, some in zip((0, -1), results, strict=True):
        same = (codes == codes[query]).all(axis=1) & np.array(["/blue/" in path for path in paths])
        assert {hit.id for hit in some} == set(np.array(paths)[same])
    assert nearest(location, model, [paths[0]], where=index.parse("label=nobody")) == [[]]
    assert nearest(location, model, []) == []


@pytest.fixture(scope="module")
def with_features(tmp_path_factory):
    """The place of an index of 30 items with 8-bit codes, the codes and the features, and those of three queries."""
    random = np.random.default_rng(5)
    codes, features = random.integers(0, 8, (33, 1), np.uint8), random.integers(-127, 128, (33, 16)).astype(np.int8)
    features[7] = features[3]  # equal cosines
    place = tmp_path_factory.mktemp("features") / "index"
    with index.create(place, index.Manifest(8, "m" * 64, features=16)) as opened:
        opened.add([index.Item(f"/{row:02d}") for row in range(30)], codes[:30], features[:30])
    return place, codes, features


@pytest.mark.parametrize(("k", "rerank", "radius"), [(5, 0, None), (5, 3, None), (5, 12, None), (30, 30, 1), (40, 500, None)])
def test_the_nearest_are_ranked_again(with_features, k, rerank, radius):
    """The first by codes come by descending cosine, the others behind them by distance, as plain Python ranks them."""
    place, codes, features = with_features
    with index.open_index(place) as opened:
        given = {"k": k, "radius": radius, "where": None}
        found = hits.search_codes(opened, codes[30:], features[30:], rerank=rerank, **given)
        plain = hits.search_codes(opened, codes[30:], None, rerank=500, **given)
        assert hits.search_codes(opened, codes[30:], features[30:], rerank=0, **given) == plain
    for query, some in enumerate(found, start=30):
        distances = [bin(int(codes[query, 0]) ^ int(codes[row, 0])).count("1") for row in range(30)]
        by_codes = sorted((row for row in range(30) if radius is None or distances[row] <= radius), key=lambda r: distances[r])
        a = features.astype(float)
        cosines = [a[query] @ a[row] / np.linalg.norm(a[query]) / np.linalg.norm(a[row]) for row in range(30)]
        first = sorted(by_codes[:rerank], key=lambda row: -round(cosines[row], 6))
        assert [hit.id for hit in some] == [f"/{row:02d}" for row in (first + by_codes[rerank:])[:k]]
        assert [hit.distance for hit in some] == [distances[int(hit.id[1:])] for hit in some]
        again = min(rerank, len(by_codes))
        behind = [distances[row] for row in by_codes[rerank:]]
        for place_, hit in enumerate(some):
            same = [place for place, distance in enumerate(behind) if distance == hit.distance]
            assert (hit.rank, hit.tied) == ((place_ + 1, 0) if place_ < again else (again + same[0] + 1, len(same) - 1))
        for place_, hit in enumerate(some):
            expected = cosines[int(hit.id[1:])] if place_ < min(rerank, len(by_codes)) else None
            assert hit.cosine == (None if expected is None else pytest.approx(expected, abs=1e-4))


def test_rerank_out_of_range(with_features):
    """One line says what is expected."""
    place, codes, features = with_features
    with index.open_index(place) as opened:
        for rerank in (-1, 10_001, True, 1.5):
            with pytest.raises(InputError, match=r"rerank=.*: expected a whole number from 0 to 10,000"):
                hits.search_codes(opened, codes[30:], features[30:], k=1, radius=None, where=None, rerank=rerank)


@pytest.mark.parametrize("k", [0, -1, True, 2.5, "3"])
@pytest.mark.parametrize("rerank", [0, 500])
def test_k_out_of_range(with_features, k, rerank):
    """It is refused whether hits are ranked again or not."""
    place, codes, features = with_features
    with index.open_index(place) as opened, pytest.raises(InputError, match=r"k=.*: expected a whole number from 1"):
        hits.search_codes(opened, codes[30:], features[30:], k=k, radius=None, where=None, rerank=rerank)


def test_many_queries(with_features, monkeypatch):
    """Their features are compared in parts, with the same hits."""
    place, codes, features = with_features
    given = {"k": 4, "radius": None, "where": None, "rerank": 9}
    with index.open_index(place) as opened:
        expected = hits.search_codes(opened, codes, features, **given)
        monkeypatch.setattr(hits, "_QUERIES", 4)
        assert hits.search_codes(opened, codes, features, **given) == expected
        assert hits.search_codes(opened, codes[:0], features[:0], **given) == []


def test_features_of_another_length(with_features):
    """Such an index can only be searched by codes."""
    with index.open_index(with_features[0]) as opened, pytest.raises(InputError, match="of 16 numbers, expected 160; fix: "):
        hits.check_features(opened)


def test_the_table_shows_cosines():
    """A column for them where there are some, and a mark for hits without; a caption has them too."""
    some = [Hit(1, 3, "/a.png", ("cat",), 0.98765), Hit(2, 1, "/b.png", (), None)]
    assert [line.split() for line in hits.table("q", some).splitlines()[1:]] == [
        ["rank", "bits", "cosine", "labels", "path"],
        ["1", "3", "0.988", "cat", "/a.png"],
        ["2", "1", "-", "/b.png"],
    ]
    assert [hits.caption(hit) for hit in some] == ["1: 3 bits, cosine 0.99", "2: 1 bit"]
    assert "cosine" not in hits.table("q", some[1:])


def test_ties_are_named():
    """Equal ranks are marked, and how many more there are at the last distance is said."""
    some = [Hit(1, 0, "/a.png", ()), Hit(2, 1, "/b.png", (), None, 18), Hit(2, 1, "/c.png", (), None, 18)]
    lines = hits.table("q", some).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2=", "2="]
    assert lines[5:] == ["17 more at the same distance as the last, 1 bit"]
    assert hits.more_tied(some[:1]) == hits.more_tied([]) == hits.more_tied([hit._replace(tied=1) for hit in some[1:]]) == []
    assert hits.more_tied([Hit(1, 3, "/a.png", (), None, hits.MOST_TIED)]) == [
        "at least 100 more at the same distance as the last, 3 bits"
    ]
    assert hits.caption(some[1]) == "2=: 1 bit"


def test_the_model_of_an_index(filled, colours, tmp_path):
    """The model is loaded from where it was, or from the given folder; another model is refused."""
    _, model, location = filled
    with index.open_index(location) as opened:
        assert hits.load_model(opened, workdir=None).sha256 == model.sha256
    shutil.copytree(colours[1] / "model", tmp_path / "moved" / "model")
    with index.open_index(location) as opened:
        assert hits.load_model(opened, workdir=tmp_path / "moved").sha256 == model.sha256
    for manifest, workdir, message in (
        (index.Manifest(12, model.sha256, ""), None, "doesn't say where its model is"),
        (index.Manifest(12, model.sha256, "/gone"), None, "/gone holds no trained model.*give the run's folder with --workdir"),
        (index.Manifest(12, "0" * 64, ""), str(colours[1]), "codes of another model"),
        (index.Manifest(24, model.sha256, ""), str(colours[1]), "codes of 24 bits, and these have 12"),
        (
            index.Manifest(12, model.sha256, "s3://bucket/run"),
            None,
            "object store; fix: if you trust it, --workdir=s3://bucket/run",
        ),
    ):
        shutil.rmtree(tmp_path / "index", ignore_errors=True)
        with index.create(str(tmp_path / "index"), manifest) as opened, pytest.raises(InputError, match=message):
            hits.load_model(opened, workdir=workdir)


def test_table():
    """Columns are aligned; a query without hits has a line that says so."""
    some = [Hit(1, 0, "/a.jpg", ("cat",)), Hit(2, 12, "/b.jpg", ("cat", "dog")), Hit(10, 3, "/c.jpg", ())]
    assert hits.table("q.jpg", some).splitlines() == [
        "q.jpg",
        "rank  bits  labels    path",
        "   1     0  cat       /a.jpg",
        "   2    12  cat, dog  /b.jpg",
        "  10     3            /c.jpg",
    ]
    assert hits.table("q.jpg", []) == "q.jpg\nnothing found"


def test_thumbnail(filled, tmp_path):
    """A picture is read small; a deleted file, a file that is no picture, a folder, and what is no path are None."""
    places = places_of("/")
    assert hits.thumbnail(filled[0][0], places).shape == (160, 213, 3)
    Image.fromarray(np.full((9, 9), 4_095, np.uint16)).save(tmp_path / "deep.png")
    assert [int(hits.thumbnail(str(tmp_path / "deep.png"), places, bit_depth=depth).max()) for depth in (0, 12)] == [15, 255]
    (tmp_path / "text.png").write_text("no picture")
    for gone in (str(tmp_path / "text.png"), str(tmp_path), "/gone.png", "tfds:cifar10#3", "", "a\0b", "ftp://host/x.png"):
        assert hits.thumbnail(gone, places) is None


def test_page(filled):
    """The page has each query, hit and distance; a name that is HTML is text; a deleted picture has a placeholder."""
    paths = filled[0]
    some = [Hit(1, 0, paths[0], ("red",)), Hit(2, 1, f"/gone/{EVIL}", ("<script>",))]
    text = hits.page([paths[1]], [some], places_of("/"), head={"filter": EVIL}, nothing="").decode()
    assert text.count("data:image/jpeg") == 2
    assert "1: 0 bits" in text
    assert "2: 1 bit<" in text
    assert "not there" in text
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "<td>filter</td><td>&lt;img src=x" in text


def test_a_page_says_what_is_tied_and_what_is_missing(filled):
    """Tied ranks, how many more there are, and why a query has no hits; the query is apart from them."""
    paths = filled[0]
    tied = [Hit(1, 2, paths[0], ("red",), None, 5), Hit(1, 2, paths[1], ("red",), None, 5)]
    text = hits.page(paths[:2], [tied, []], places_of("/"), head={}, nothing="nothing <here>").decode()
    assert text.count("1=: 2 bits") == 2
    assert text.count("<p>4 more at the same distance as the last, 2 bits</p>") == 1
    assert text.count("<p>nothing &lt;here&gt;</p>") == 1
    apart = re.findall(r'<div class="query"><figure.*?</figure></div><div class="hits">(.*?)</div>\n', text + "\n", re.DOTALL)
    assert [part.count("<figure") for part in apart] == [2, 0]


def test_why_nothing_was_found():
    """The line names what limited the search, and what to change."""
    assert hits.nothing_found(radius=3, where=None) == (
        "nothing found within radius 3; fix: give a larger --radius, or leave it out"
    )
    assert hits.nothing_found(radius=None, where="label=cat").endswith(
        "where label=cat; fix: give another --where, or leave it out"
    )
    assert hits.nothing_found(radius=0, where="label=cat") == (
        "nothing found within radius 0 where label=cat; fix: give a larger --radius or another --where, or leave both out"
    )
    assert "the index is empty" in hits.nothing_found(radius=None, where=None)


def test_sheet(filled):
    """A PNG with lines of cells for each query."""
    paths = filled[0]
    results = [[Hit(rank, 0, path, ("red",)) for rank, path in enumerate(paths[:12], start=1)], []]
    picture = Image.open(io.BytesIO(hits.sheet(paths[:2], results, places_of("/"))))
    assert picture.format == "PNG"
    assert picture.size == (1208, 8 + 28 + 2 * 146 + 28 + 146 + 8 - 8)
    red, green, blue = np.asarray(picture.convert("RGB"))[40:140, 20:110].mean(axis=(0, 1))  # the first cell's picture
    assert "/blue/" in paths[0]
    assert blue > 200
    assert max(red, green) < 150
