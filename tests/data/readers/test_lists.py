"""List files: published ones and made ones are read as a slow reading by hand does, and each fault is named with its line."""

import gzip
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq_jax.data import protocols, splits
from adsq_jax.data.readers import list_labels, lists
from adsq_jax.errors import InputError

PUBLISHED = Path(__file__).parents[1] / "nuswide_21"
SMALL = {
    "database": "a.jpg 1 0 0\nb/c.jpg 0 1 1\nb/d.jpg 0 0 0\n",
    "train": "b/d.jpg 0 0 0\na.jpg 1 0 0\n",
    "query": "q.jpg 0 1 0\n",
}


def write(folder, **content):
    """A folder of three lists, those of SMALL where no other is given."""
    for part, text in {**SMALL, **content}.items():
        (folder / f"{part}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def by_hand(text):
    """Paths and labels of one list, character by character: the format's description, and nothing clever."""
    names, labels = [], []
    for line in text.splitlines():
        values = []
        while line.endswith((" 0", " 1")):
            values.insert(0, int(line[-1]))
            line = line[:-2]
        names.append(line)
        labels.append(values)
    return names, labels


def names_of(source):
    return [source.name(i) for i in range(len(source))]


def parsed(tmp_path, text):
    """Names, labels uint8[n, c] and c of one list."""
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    form, names, packed, classes = lists.parse(path)
    assert form == "a 0 or 1 for each class"
    assert packed.shape == (len(names), -(-classes // 8))
    return [name.decode() for name in names], np.unpackbits(packed, axis=1, count=classes).tolist()


def error_of(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 500
    return text


def test_the_format(tmp_path):
    """Images are those of the database, then those only in other lists; each part has its rows in its list's order."""
    source = lists.read(tmp_path / "pictures", lists=write(tmp_path))
    assert names_of(source) == ["a.jpg", "b/c.jpg", "b/d.jpg", "q.jpg"]
    np.testing.assert_array_equal(source.labels[:], [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 0]])
    assert {part: rows.tolist() for part, rows in source.parts.items()} == {
        "database": [0, 1, 2],
        "train": [2, 0],
        "query": [3],
    }
    assert all(rows.dtype == np.int64 for rows in source.parts.values())
    assert source.classes == ("0", "1", "2")
    assert source.location(1) == str(tmp_path / "pictures" / "b/c.jpg")


def test_images_below_the_folder(tmp_path):
    """Paths begin at the images' folder, not at that of the lists."""
    (tmp_path / "pictures" / "b").mkdir(parents=True)
    (tmp_path / "pictures" / "b" / "c.jpg").write_bytes(b"content")
    source = lists.read(tmp_path / "pictures", lists=write(tmp_path))
    assert source.content(1) == b"content"
    assert source.missing(np.arange(4)).tolist() == [0, 2, 3]


def test_names_of_classes(tmp_path):
    """classes.txt names the classes, one a line, in any alphabet, with spaces in them and blank lines between."""
    write(tmp_path, classes="\ufefftwo words\r\n\r\nWörter \r\n空\r\n")
    assert lists.read(tmp_path, lists=tmp_path).classes == ("two words", "Wörter", "空")


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_class_names(tmp_path, count):
    """A classes.txt of another number of names is refused, with both numbers."""
    write(tmp_path, classes="\n".join("abcd"[:count]))
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert f"{tmp_path / 'classes.txt'} has {count} names" in text
    assert "3 classes" in text


def test_query_list_called_test(tmp_path):
    """The list of queries may be called test.txt, as DeepHash-pytorch calls it; it gives the same."""
    expected = names_of(lists.read(tmp_path, lists=write(tmp_path)))
    (tmp_path / "query.txt").rename(tmp_path / "test.txt")
    assert names_of(lists.read(tmp_path, lists=tmp_path)) == expected


def test_query_and_test(tmp_path):
    """Two lists of queries are one too many, and both names are told."""
    write(tmp_path, test=SMALL["query"])
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert all(word in text for word in (str(tmp_path), "query.txt", "test.txt", "2 lists"))


@pytest.mark.parametrize("part", ["query", "train", "database"])
def test_missing_list(tmp_path, part):
    """A list that isn't there, or is a folder, is named, with the flag that says where to look."""
    write(tmp_path)
    (tmp_path / f"{part}.txt").unlink()
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert all(word in text for word in (str(tmp_path), f"{part}.txt", "--config.data.lists"))
    (tmp_path / f"{part}.txt").mkdir()
    assert f"{part}.txt" in error_of(lists.read, tmp_path, lists=tmp_path)


def test_missing_folder(tmp_path):
    """A folder that isn't there is named."""
    assert str(tmp_path / "none") in error_of(lists.read, tmp_path, lists=tmp_path / "none")


def test_list_that_cannot_be_read(tmp_path, monkeypatch):
    """A list without permission is named, with what the system says."""

    def fails(path):
        raise PermissionError(13, "Permission denied")

    write(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", fails)
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert str(tmp_path / "database.txt") in text
    assert "Permission denied" in text


@pytest.fixture(scope="module")
def nus_wide(tmp_path_factory):
    """The published lists of queries and training set, and a database that holds the training set, in their real length."""
    folder = tmp_path_factory.mktemp("nuswide_21")
    text = {part: gzip.decompress((PUBLISHED / f"{part}.txt.gz").read_bytes()).decode() for part in ("query", "train")}
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (193_734 - 10_500, 21))
    lines = [f"images/{k:04d}_new_{k}.jpg {' '.join(map(str, row))}" for k, row in enumerate(labels.tolist())]
    lines += text["train"].splitlines()
    text["database"] = "\n".join(lines[k] for k in random.permutation(len(lines))) + "\n"
    return write(folder, **text), text


def test_published_lists(nus_wide):
    """The published lists are read as by hand, row by row: 2,100 queries and 10,500 training images with 21 labels."""
    folder, text = nus_wide
    source = lists.read(folder, lists=folder)
    assert source.labels.shape == (195_834, 21)
    for part, count in (("query", 2_100), ("train", 10_500), ("database", 193_734)):
        names, labels = by_hand(text[part])
        rows = source.parts[part]
        assert len(rows) == len(names) == count
        assert [source.name(row) for row in rows.tolist()] == names
        np.testing.assert_array_equal(source.labels[rows], labels)
    assert np.isin(source.parts["train"], source.parts["database"]).all()
    assert source.names.unique().all()


def test_published_lists_are_the_protocol(nus_wide):
    """They are a split of the published sizes, whose queries are in no other part, with the labels of the lists."""
    folder, text = nus_wide
    source = lists.read(folder, lists=folder)
    split, map_at = protocols.draw(source, "nuswide", seed=0, query_share=0.5, train_share=0.5)
    assert [len(rows) for rows in split] == [2_100, 10_500, 193_734]
    assert map_at == "5000"
    splits.check_disjoint(split, source.names, allow_overlap=False)
    assert source.labels.per_class(split.query).tolist() == np.sum(by_hand(text["query"])[1], axis=0).tolist()


def test_memory(nus_wide):
    """Names and labels of NUS-WIDE take less than 50 bytes an image."""
    folder, _ = nus_wide
    source = lists.read(folder, lists=folder)
    assert source.names.nbytes + source.labels.nbytes < 50 * len(source)


LINES = [
    ("plain.jpg", [1, 0, 1]),
    ("two words.jpg", [0, 1, 1]),
    ("a/b c/d 7.jpg", [0, 0, 0]),
    ("x", [1, 1, 1]),
    ("ü.jpg", [0, 0, 1]),
]


def text_of(lines, *, separator=" ", end="\n"):
    return "".join(name + "".join(f"{separator}{value}" for value in values) + end for name, values in lines)


FORMS = {
    "plain": text_of(LINES),
    "no line end": text_of(LINES).removesuffix("\n"),
    "blank lines at the end": text_of(LINES) + "\n\n \n",
    "windows": text_of(LINES, end="\r\n"),
    "BOM": "\ufeff" + text_of(LINES),
    "BOM and windows": "\ufeff" + text_of(LINES, end="\r\n"),
    "tabs": text_of(LINES, separator="\t"),
    "two spaces": text_of(LINES, separator="  "),
    "spaces at the end": text_of(LINES, end="  \n"),
    "tab at the end": text_of(LINES, end="\t\r\n"),
    "spaces before": " " + text_of(LINES, end="\n ").removesuffix(" "),
    "mixed": text_of(LINES[:2], separator="\t") + text_of(LINES[2:3]) + text_of(LINES[3:], separator="   ", end=" \r\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path, form):
    """Spaces, tabs, Windows line ends, a BOM and a missing last line end make no difference."""
    assert parsed(tmp_path, FORMS[form]) == ([name for name, _ in LINES], [values for _, values in LINES])


C = ("cat", "dog", "owl")
PICTURES = {"a/1.jpg": 0, "b c/2.jpg": 1, "3.png": 2, "a/4.jpg": 2, "b c/5.jpg": 1, "6.jpg": 0}


def hot(k):
    return " ".join("1" if k == other else "0" for other in range(3))


READ_AS = {  # lines as people have them, and the names of the classes that are read
    "a 0 or 1 a class": (lambda p, k: f"{p} {hot(k)}", "012"),
    "ids": (lambda p, k: f"{p} {k}", "012"),
    "ids from 1": (lambda p, k: f"{p} {k + 1}", "123"),
    "ids with gaps": (lambda p, k: f"{p}\t{(7, 2_000, 10**12)[k]}", ("7", "2000", str(10**12))),
    "ids by commas": (lambda p, k: f"{p},{k}", "012"),
    "names by commas": (lambda p, k: f"{p}, {C[k]}", C),
    "names in quotes": (lambda p, k: f'"{p}","{C[k]}"', C),
    "tabs": (lambda p, k: f"{p}\t{hot(k)}".replace(" 1", "\t1"), "012"),
    "commas": (lambda p, k: f"{p},{hot(k).replace(' ', ',')}", "012"),
    "commas and spaces": (lambda p, k: f"{p}, {hot(k).replace(' ', ', ')} ", "012"),
    "commas and quotes": (lambda p, k: f'"{p}",{hot(k).replace(" ", ",")}', "012"),
    "the folder before": (lambda p, k: f"ROOT/{p} {hot(k)}", "012"),
    "./": (lambda p, k: f"./{p} {k}", "012"),
    "backslashes": (lambda p, k: p.replace("/", "\\") + f",{C[k]}", C),
    "Windows": (lambda p, k: f"{p} {k}\r", "012"),
    "spaces after": (lambda p, k: f"{p} {k}  ", "012"),
}


@pytest.mark.parametrize("form", READ_AS)
def test_forms_of_labels(tmp_path, form):
    """Each form gives the same images with the same classes, under the names that it has for them."""
    line, classes = READ_AS[form]
    text = "\n".join(line(p, k) for p, k in PICTURES.items()).replace("ROOT", str(tmp_path / "images"))
    # one image of class 0 in the queries, whose ids alone would be ambiguous
    query = line("q.jpg", 0).replace("ROOT", str(tmp_path / "images"))
    write(tmp_path, database=text, train=text + "\n", query=query)
    source = lists.read(tmp_path / "images", lists=tmp_path)
    assert source.classes == tuple(classes)
    assert names_of(source) == [*PICTURES, "q.jpg"]
    assert source.labels[:].tolist() == np.eye(3, dtype=int)[[*PICTURES.values(), 0]].tolist()
    one = lists.read_one(tmp_path / "database.txt", directory=tmp_path / "images")
    assert (names_of(one), one.classes) == ([*PICTURES], tuple(classes))


def test_several_names(tmp_path):
    """Several names a line are several labels; an image that is in two lists has the same ones, in any order."""
    write(tmp_path, database="a.jpg,owl\nb.jpg,dog,cat\n", train="b.jpg,cat,dog\n", query='"q,1.jpg",owl,"cat, big"\n')
    source = lists.read(tmp_path, lists=tmp_path)
    assert source.classes == ("cat", "cat, big", "dog", "owl")
    assert (names_of(source), source.labels[:].tolist()) == (
        ["a.jpg", "b.jpg", "q,1.jpg"],
        [[0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]],
    )
    write(
        tmp_path, **dict.fromkeys(SMALL, "a.jpg,person,train\nb.jpg,person\nc.jpg,train\n")
    )  # a train is one of COCO's classes
    assert lists.read(tmp_path, lists=tmp_path).labels[:].tolist() == [[1, 1], [1, 0], [0, 1]]
    write(tmp_path, train="b.jpg,cat,owl\n", database="a.jpg,owl\nb.jpg,dog,cat\n", query="q.jpg,owl\n")
    assert "train.txt, line 1: 'b.jpg' has other labels" in error_of(lists.read, tmp_path, lists=tmp_path)


REFUSED_AS = {  # the first lines of a list, and what the error says
    "blank": ("\na.jpg 0 1 0", "line 1: '' is blank; fix: remove the line"),
    "comment": ("# list\na.jpg 0 1 0", "line 1: '# list' is a comment; fix: remove the line"),
    "heading": ("path c0 c1 c2\na.jpg 0 1 0", "fix: write it so, or remove a heading"),
    "heading by commas": ("file,c0,c1\na.jpg,0,1", "line 1: 'file,c0,c1' is a heading, not a picture; fix: remove the line"),
    "heading of ids": ("image,label\na.jpg,2", "is a heading"),
    "label first": ("2 a.jpg", "fix: put the path first"),
    "labels first": ("0 1 0 a.jpg", "fix: put the path first"),
    "name": ("a b.jpg dog", "fix: put a comma before a class name, 'a b.jpg,dog'"),
    "-1": ("a.jpg 1 -1 -1", "'-1' among its labels"),
    "-1 before the 1": ("a.jpg -1 -1 1", "'-1' among its labels"),
    "fractions": ("a.jpg 0.0 1.0", "'0.0' among its labels"),
    "a count": ("a.jpg 0 2 1", "'2' among its labels"),
    "brackets": ("a.jpg [0 1 0]", "without brackets"),
    "brackets and commas": ("a.jpg,[0,1,0]", "without brackets"),
    "JSON": ('{"a.jpg": 3}', "without brackets"),
    "-1 by commas": ("a.jpg,-1,1", "has a number, true or false among class names; fix: "),
    "a box and a name": ("a.jpg,10,20,50,60,dog", "has a number, true or false among class names"),
    "several ids": ("a.jpg,3,7", "has a number, true or false among class names"),
    "true and false": ("a.jpg,True,False", "has a number, true or false among class names"),
    "name first": ("dog,a.jpg\ncat,b.jpg", "has a picture among class names; fix: put the path first"),
    "a row number first": ("0,a.jpg,dog\n1,b.jpg,cat", "has a picture among class names; fix: put the path first"),
    "a column of parts": (
        "a.jpg,dog,train\nb.jpg,train,Test",
        "line 1: 'a.jpg,dog,train' has a part of the data, 'train', for a class",
    ),
    "an empty name": ("a.jpg,dog,", "lacks a path, or a class name"),
    "no name later": ("a.jpg,dog\nb.jpg", "line 2: 'b.jpg' lacks a path, or a class name"),
    "quotes that don't pair": ('a.jpg,dog\n"b.jpg,cat', "line 2: "),
    "a name among ids": ("a.jpg 3\nb.jpg dog", "line 2: 'b.jpg dog' isn't a path and one class id"),
    "two ids": ("a.jpg 3\nb.jpg 3 4", "line 2: 'b.jpg 3 4' isn't a path and one class id"),
    "a negative id": ("a.jpg 3\nb.jpg -1", "line 2: 'b.jpg -1' isn't a path and one class id"),
    "a huge id": ("a.jpg 3\nb.jpg " + "9" * 19, "isn't a path and one class id"),
    "ids of 0 and 1": ("a.jpg 0\nb.jpg 1", "may be a class id, or say whether an image is of a single class; fix: "),
    "ids of 0 and 1 by commas": ("a.jpg,0\nb.jpg,1", "may be a class id"),
    "twice": ("a.jpg,dog\nb.jpg,cat\na.jpg,dog", "line 3: 'a.jpg' is in line 1 already"),
    "above": ("../a.jpg,dog\nb.jpg,cat", "line 1: '../a.jpg' leads out"),
}


@pytest.mark.parametrize("form", REFUSED_AS)
def test_forms_that_are_refused(tmp_path, form):
    """A list of another form, or one that may mean two things, is refused in one line that says how to convert it."""
    text, says = REFUSED_AS[form]
    write(tmp_path, **dict.fromkeys(SMALL, text + "\n"))
    for found in (
        error_of(lists.read, tmp_path / "images", lists=tmp_path),
        error_of(lists.read_one, tmp_path / "database.txt", directory=tmp_path / "images"),
    ):
        assert str(tmp_path / "database.txt") in found
        assert says in found
        assert "fix: " in found


def test_ids_of_0_and_1_with_their_names(tmp_path):
    """Where classes.txt names two classes, 0 and 1 are their ids; with other numbers of names it is refused."""
    write(tmp_path, **dict.fromkeys(SMALL, "a.jpg 0\nb.jpg 1\n"))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    source = lists.read(tmp_path, lists=tmp_path)
    assert (source.classes, source.labels[:].tolist()) == (("cat", "dog"), [[1, 0], [0, 1]])
    (tmp_path / "classes.txt").write_text("cat\n")
    found = error_of(lists.read, tmp_path, lists=tmp_path)
    assert "has 1 names, and the lists have class ids from 0 to 1" in found


def test_names_that_classes_txt_lacks(tmp_path):
    """The order of classes.txt is the classes'; a name that it lacks is told with its line."""
    write(tmp_path, **dict.fromkeys(SMALL, "a.jpg,dog\nb.jpg,cat\n"))
    (tmp_path / "classes.txt").write_text("dog\ncat\nowl\n")
    assert lists.read(tmp_path, lists=tmp_path).labels[:].tolist() == [[1, 0, 0], [0, 1, 0]]
    (tmp_path / "classes.txt").write_text("dog\nCat\nowl\n")
    assert "database.txt, line 2: 'cat' isn't a class of" in error_of(lists.read, tmp_path, lists=tmp_path)


UNCLEAR = {  # what stands for class names, the name that it is read as, and what the error says of it
    "dog|cat": ("dog|cat", "may be several names; fix: write commas between them, path,name,name; or, "),
    "dog;cat": ("dog;cat", "may be several names"),
    "dog\tcat": ("dog\tcat", "may be several names"),
    "dog [2]": ("dog [2]", "has brackets; fix: write names without them"),
    "crane (bird)": ("crane (bird)", "has brackets"),
    "<dog>": ("<dog>", "has brackets"),
    "\"['dog', 'cat']\"": ("['dog', 'cat']", "has brackets"),
    "'dog'": ("'dog'", "has quotes; fix: "),
    '"""dog"""': ('"dog"', "has quotes; fix: "),
    "dog # sure": ("dog # sure", "may have a comment; fix: remove it"),
    **{name: (name, "may mean that a label is missing; fix: ") for name in ("nan", "NaN", "None", "NULL")},
}


@pytest.mark.parametrize("written", UNCLEAR)
@pytest.mark.parametrize("row", [0, 1])
def test_names_that_may_mean_something_else(tmp_path, written, row):
    """They are refused with their line, in the first line too, unless classes.txt names them."""
    name, says = UNCLEAR[written]
    rows = [f"a.jpg,{written}", "b.jpg,owl"]
    write(tmp_path, **dict.fromkeys(SMALL, "\n".join(rows[:: -1 if row else 1])))
    found = error_of(lists.read, tmp_path, lists=tmp_path)
    assert f"database.txt, line {row + 1}: {name!r} {says}" in found
    assert found.endswith("if it is a class, put a classes.txt with all their names beside the list")
    assert f"{name!r} {says}" in error_of(lists.read_one, tmp_path / "train.txt", directory=tmp_path)
    (tmp_path / "classes.txt").write_text(f"owl\n{name}\n")
    source = lists.read(tmp_path, lists=tmp_path)
    assert (source.classes, names_of(source)[row]) == (("owl", name.replace("\t", "?")), "a.jpg")
    assert source.labels[[row]].tolist() == [[0, 1]]


def test_names_with_marks_that_are_clear(tmp_path):
    """Apostrophes inside a name, dots, dashes, slashes, ampersands and all scripts are names as any others."""
    names = ["jack-o'-lantern", "St. Bernard", "cats & dogs", "TV/monitor", "Müller", "犬", "none of these", "90%"]
    text = "".join(f"{k}.jpg,{name}\n" for k, name in enumerate(names))
    write(tmp_path, **dict.fromkeys(SMALL, text))
    assert set(lists.read(tmp_path, lists=tmp_path).classes) == set(names)


def test_lists_of_several_forms(tmp_path):
    """Lists that belong together have one form."""
    write(tmp_path, train="b/d.jpg 2\na.jpg 1\n")
    found = error_of(lists.read, tmp_path, lists=tmp_path)
    assert "train.txt has class ids and database.txt a 0 or 1 for each class; fix: " in found


def test_many_names_are_bounded(tmp_path, monkeypatch):
    """Class names that would take too much memory are refused before it is taken."""
    monkeypatch.setattr(list_labels, "_MOST_BYTES", 100)
    text = "".join(f"{k}.jpg,name {k},name {k + 1}\n" for k in range(30))
    write(tmp_path, **dict.fromkeys(SMALL, text))
    assert "31 class names take too much memory" in error_of(lists.read, tmp_path, lists=tmp_path)


@pytest.mark.parametrize("before", ["/home/someone/coco/", "C:\\data\\coco\\", "old/place/"])
@pytest.mark.parametrize("end", ["", "/"])
def test_a_prefix_is_stripped(tmp_path, before, end):
    """What all paths begin with is left out; without it, absolute paths are refused with the flag that works."""
    texts = {part: re.sub("(?m)^", lambda _: before, text.rstrip()) for part, text in SMALL.items()}
    write(tmp_path, **texts)
    source = lists.read(tmp_path, lists=tmp_path, strip_prefix=before.rstrip("/\\") + end)
    assert names_of(source) == ["a.jpg", "b/c.jpg", "b/d.jpg", "q.jpg"]
    if before == "old/place/":
        assert names_of(lists.read(tmp_path, lists=tmp_path))[0] == "old/place/a.jpg"
        return
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert "database.txt, line 1: " in text
    prefix = re.search("--config.data.strip_prefix=(.*)$", text)[1]
    assert prefix == before.replace("\\", "/")
    assert names_of(lists.read(tmp_path, lists=tmp_path, strip_prefix=prefix)) == names_of(source)


@pytest.mark.parametrize("prefix", ["/home/some", "/home/someone/x", "home/someone", "/"])
def test_a_prefix_of_another_folder(tmp_path, prefix):
    """A prefix that a line doesn't begin with, folder by folder, is told with the line; nothing leads out of the folder."""
    write(tmp_path, database="/home/someone/a.jpg 1 0 0\n", train="/home/someone/a.jpg 1 0 0\n", query="b.jpg 1 0 0\n")
    text = error_of(lists.read, tmp_path, lists=tmp_path, strip_prefix=prefix)
    if prefix == "/":
        assert "query.txt, line 1: 'b.jpg' doesn't begin with '/'" in text
    else:
        assert f"database.txt, line 1: '/home/someone/a.jpg' doesn't begin with '{prefix}/'; fix: " in text
    write(tmp_path, **dict.fromkeys(SMALL, "/home/someone/../../a.jpg 1 0 0\nb /c.jpg 0 1 1"))
    for stripped in ("/home/someone", "/home/someone/..", "/home"):
        error_of(lists.read, tmp_path, lists=tmp_path, strip_prefix=stripped)


@pytest.mark.parametrize("others", [("/home/x/a.png", "C:/d/b.png"), ("C:/d/a.png", "D:/d/b.png"), ("/d/a.png", "d/b.png")])
def test_absolute_paths_of_several_roots(tmp_path, others):
    """Paths that share no folder are refused without advice on a prefix, as there is none to leave out."""
    write(tmp_path, **dict.fromkeys(SMALL, "".join(f"{path} 0 1\n" for path in others)))
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert f"database.txt, line 1: {others[0]!r} leads out of the images' folder; fix: give paths below it" in text
    assert "strip_prefix" not in text


def test_backslashes(tmp_path):
    """Windows paths are the same images, also where another list has the other kind."""
    write(tmp_path, database="b\\c.jpg 0 1 1\nb\\d e\\f.jpg 0 0 1\n", train="b/c.jpg 0 1 1\n", query="b\\q.jpg 1 0 0\n")
    source = lists.read(tmp_path, lists=tmp_path)
    assert names_of(source) == ["b/c.jpg", "b/d e/f.jpg", "b/q.jpg"]
    assert source.parts["train"].tolist() == [0]


def test_names_like_labels(tmp_path):
    """Zeros and ones inside a path, at its end too, are the path's own; dots are, if they lead nowhere."""
    names = ["10", "1/0", "a 1.jpg", "0 1 0.jpg", "a0", "a b1", "..a", "a..", "a..b/c", "...", ".hidden/x"]
    lines = [(name, [k % 2, 1]) for k, name in enumerate(names)]
    # the first line says how many labels there are
    assert parsed(tmp_path, text_of([("first.jpg", [0, 1]), *lines])) == (
        ["first.jpg", *names],
        [[0, 1], *(v for _, v in lines)],
    )


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="\\/:.01 "), min_size=1, max_size=6)
odd_names = st.lists(st.lists(words, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=3).map("/".join)


@settings(max_examples=60)
@given(st.data(), st.integers(2, 30), st.sampled_from(["\n", "\r\n", " \n", "\t\r\n"]), st.sampled_from([" ", "\t", "  "]))
def test_round_trip(tmp_path_factory, data, classes, end, separator):
    """Any labels and odd names survive being written and read, in regular lines and others, block by block."""
    values = st.lists(st.integers(0, 1), min_size=classes, max_size=classes)
    lines = data.draw(st.lists(st.tuples(odd_names, values), min_size=1, max_size=12, unique_by=lambda line: line[0]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lists, "_BLOCK", 4)
        found = parsed(tmp_path_factory.getbasetemp(), text_of(lines, end=end, separator=separator))
    assert found == ([name for name, _ in lines], [labels for _, labels in lines])


@settings(max_examples=150)
@given(st.lists(st.text("ab01/.\\ \t\r\n", max_size=12), max_size=8).map("\n".join), st.sampled_from(["", "first 0 1\n"]))
def test_any_text(tmp_path_factory, text, first):
    """Any text is read or refused in one line; what is read are as many paths as lines, each inside the folder."""
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(first + text, newline="")
    try:
        names, classes = lists.parse(path).paths, len(lists.read_one(path, directory=path.parent).classes)
    except InputError as error:
        said = str(error)
    else:
        assert (
            len(names) == len(set(names)) == (first + text).rstrip().replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        )
        assert classes >= 1
        assert all(name and name == name.strip() and b"\n" not in name and b"\\" not in name for name in names)
        assert all(b".." not in name.split(b"/") and not name.startswith(b"/") for name in names)
        return
    assert len(said.splitlines()) == 1
    assert str(path) in said


FIRST = "a.jpg 1 0 0\nb.jpg 0 1 1\n"
BAD_LINES = {  # the third line of a list, and what the error says
    "too few labels": ("c.jpg 1 0", "2 labels"),
    "too many labels": ("c.jpg 1 0 0 1", "4 labels"),
    "no label": ("c.jpg", "0 labels"),
    "a 2": ("c.jpg 1 2 0", "'2'"),
    "an x": ("c.jpg 1 0 x", "'x'"),
    "a negative": ("c.jpg -1 0 0", "'-1'"),
    "a number with a point": ("c.jpg 1.0 0 0", "'1.0'"),
    "commas": ("c.jpg,1,0,0", "0 labels"),
    "labels alone": ("1 0 0", "expected a path"),
    "more labels alone": ("1 0 0 1", "4 labels"),
    "blank": ("", "''"),
    "spaces": ("   ", "'   '"),
    "above": ("../../etc/passwd 1 0 0", "leads out"),
    "above inside": ("a/../../b 1 0 0", "leads out"),
    "above at the end": ("a/.. 1 0 0", "leads out"),
    "above alone": (".. 1 0 0", "leads out"),
    "absolute": ("/etc/passwd 1 0 0", "leads out"),
    "drive": ("C:\\x 1 0 0", "leads out"),
    "drive without a slash": ("c:x 1 0 0", "leads out"),
    "share": ("\\\\server\\x 1 0 0", "leads out"),
    "above on Windows": ("a\\..\\..\\b 1 0 0", "leads out"),
    "above, slow": ("../b 1  0 0", "leads out"),
    "NUL": ("c\0.jpg 1 0 0", "c\\x00"),
    "twice": ("a.jpg 1 0 0", "line 1"),
    "twice with other labels": ("b.jpg 0 0 0", "line 2"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
@pytest.mark.parametrize("part", ["query", "train", "database"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bad_line(tmp_path, kind, part, end):
    """A faulty line, in any of the lists, is told in one line: file, number, the line itself, and what is wrong."""
    line, says = BAD_LINES[kind]
    write(tmp_path, **{part: (FIRST + line + "\nd.jpg 0 0 1\n").replace("\n", end)})
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert f"{tmp_path / part}.txt, line 3: " in text
    assert says in text


@pytest.mark.parametrize("at", [2, 65_536, 65_537, 131_073])
def test_line_number_of_a_long_list(tmp_path, at):
    """The number is right at the beginning, at the end, and on both sides of where a block of lines ends."""
    path = tmp_path / "list.txt"
    for line, says in (("c.jpg 1 x", "'x'"), ("../c.jpg 1 0", "leads out"), ("n0.jpg 1 0", "is in line 1")):
        rows = [f"n{k}.jpg 0 1" for k in range(131_073)]
        rows[at - 1] = line
        path.write_text("\n".join(rows))
        found = error_of(lists.parse, path)
        assert f"{path}, line {at}: '{line.split()[0]}" in found
        assert says in found


def test_first_of_several_faults(tmp_path):
    """The message names the first of several faults in a file."""
    (tmp_path / "list.txt").write_text(FIRST + "c 1 0\nd 0 0 2\n")
    assert "line 3: 'c 1 0'" in error_of(lists.parse, tmp_path / "list.txt")


def test_long_line(tmp_path):
    """A line of a megabyte is told by its beginning."""
    (tmp_path / "list.txt").write_text(FIRST + "x" * 2**20)
    assert "line 3: 'xxx" in error_of(lists.parse, tmp_path / "list.txt")


@pytest.mark.parametrize("labels", ["", " 0", " 2", " 1"])
def test_too_few_classes(tmp_path, labels):
    """Lists of one class are refused: there is nothing to tell apart; a 0 or 1 alone may be ids or one class."""
    write(tmp_path, **dict.fromkeys(SMALL, f"a.jpg{labels}\nb.jpg{labels}\n"))
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert str(tmp_path / "database.txt") in text
    assert ("may be a class id" if labels in (" 0", " 1") else "two or more classes") in text


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \t\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_empty_list(tmp_path, content):
    """A list without a line is called empty."""
    write(tmp_path, train=content)
    assert f"{tmp_path / 'train.txt'} is empty" in error_of(lists.read, tmp_path, lists=tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings(tmp_path, encoding):
    """UTF-16, as Windows' editors write it, is refused; with its BOM it is called by name."""
    write(tmp_path, train=SMALL["train"].encode(encoding))
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert str(tmp_path / "train.txt") in text
    assert "UTF-16" in text or encoding in ("utf-16-le", "utf-16-be")


@pytest.mark.parametrize(("part", "content"), [("query", "q.jpg 0 1\n"), ("train", "a.jpg 1 0 0 0\n")])
def test_lists_of_other_classes(tmp_path, part, content):
    """A list with another number of labels per line is refused, with both numbers."""
    text = error_of(lists.read, tmp_path, lists=write(tmp_path, **{part: content}))
    assert str(tmp_path / f"{part}.txt") in text
    assert f"{len(content.split()) - 1} labels" in text
    assert "database.txt 3" in text


@pytest.mark.parametrize("part", ["train", "query"])
def test_other_labels_in_another_list(tmp_path, part):
    """An image with other labels than in an earlier list is refused, with its line."""
    write(tmp_path, **{part: "n.jpg 1 1 1\nb/c.jpg 0 1 1\na.jpg 1 0 1\n"})
    text = error_of(lists.read, tmp_path, lists=tmp_path)
    assert f"{tmp_path / part}.txt, line 3: 'a.jpg' has other labels" in text


def test_other_labels_among_those_of_no_database(tmp_path):
    """Queries and training images that aren't in the database are compared as well."""
    text = error_of(lists.read, tmp_path, lists=write(tmp_path, train="n.jpg 1 1 1\n", query="q.jpg 0 0 0\nn.jpg 1 1 0\n"))
    assert "query.txt, line 2: 'n.jpg'" in text


def test_query_in_the_database(tmp_path):
    """An image may stand in all three lists, as in HashNet's for COCO: it is one row, and the protocol decides."""
    source = lists.read(tmp_path, lists=write(tmp_path, query="b/c.jpg 0 1 1\nq.jpg 0 0 1\n", train="b/c.jpg 0 1 1\n"))
    assert {part: rows.tolist() for part, rows in source.parts.items()} == {
        "database": [0, 1, 2],
        "train": [1],
        "query": [1, 3],
    }
    split = protocols.from_lists(source, protocols.PROTOCOLS["coco-lists"], seed=0)
    with pytest.raises(InputError, match=r"--config\.data\.allow_overlap=True"):
        splits.check_disjoint(split, source.names, allow_overlap=False)


@pytest.mark.parametrize("query", ["./a.jpg", "b//c.jpg", "b/./c.jpg", ".\\a.jpg"])
def test_one_file_by_two_paths(tmp_path, query):
    """A query that is a file of the database by a roundabout path is the same image, or is refused: no overlap is hidden."""
    name = {"a": "a.jpg 1 0 0", "c": "b/c.jpg 0 1 1"}[query.replace("\\", "/").rpartition("/")[2][0]]
    write(tmp_path, query=query + name[name.index(" ") :])
    try:
        source = lists.read(tmp_path, lists=tmp_path)
    except InputError as error:
        said = str(error)
    else:
        assert np.isin(source.parts["query"], source.parts["database"]).all()
        return
    assert "query.txt, line 1" in said


@pytest.mark.parametrize("name", [".", "./", ".\\", "b/.", "./.", "b/", "./C:/x"])
def test_path_of_no_file(tmp_path, name):
    """A path that is a folder in any case, or that would lead out once it is shortened, is refused with its line."""
    assert "list.txt, line 2: " in error_of(parsed, tmp_path, f"a.jpg 0 1\n{name} 0 1\n")


@pytest.mark.parametrize("character", ["\r", "\x01", "\x1b", "\x0b"])
def test_control_characters(tmp_path, character):
    """A path with control characters, a lone carriage return first of all, is refused: it would break every message."""
    text = f"a.jpg 0 1\nb{character}c.jpg 0 1\n"
    assert "list.txt, line 2: " in error_of(parsed, tmp_path, text)


def test_line_ends_of_old_macs(tmp_path):
    """Lines that end in a carriage return alone are lines, or are refused, but not one image."""
    try:
        found = parsed(tmp_path, b"a.jpg 0 1\rb.jpg 1 0\r")
    except InputError as error:
        said = str(error)
    else:
        assert found == (["a.jpg", "b.jpg"], [[0, 1], [1, 0]])
        return
    assert re.search(r"list.txt", said)


@pytest.mark.parametrize("form", ["regular", "irregular"])
def test_speed(tmp_path, form):
    """100,000 lines of 21 labels are read within seconds, also where none of them is as regular as most."""
    labels = np.random.default_rng(0).integers(0, 2, (100_000, 21)).tolist()
    separator = " " if form == "regular" else "\t"
    lines = [f"images/{k:06d}_picture.jpg{separator}{separator.join(map(str, row))}" for k, row in enumerate(labels)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    begun = time.process_time()
    _, names, packed, _ = lists.parse(tmp_path / "list.txt")
    assert time.process_time() - begun < 3
    assert len(names) == 100_000
    np.testing.assert_array_equal(packed, np.packbits(np.array(labels, np.uint8), axis=1))
