"""Every figure of a retrieval against slow sums over ranked lists, and with the labels of NUS-WIDE."""

import json
import pathlib

import jax
import numpy as np
import pytest

from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.errors import InputError
from adsq_jax.retrieval import POINTS, Limits, SingleDevice, arrays, check_cutoffs, measure
from adsq_jax.retrieval.arrays import Labels
from adsq_jax.retrieval.measures import table_rows

LABELS = pathlib.Path(__file__).parent / "data" / "nuswide_21_labels.npz"


class Ranked:
    """One query's ranked list; tied items are averaged rank by rank."""

    def __init__(self, distances, grades, labels):
        self.classes = [k for k, has in enumerate(labels) if has]  # of the query
        order = np.argsort(distances, kind="stable")
        self.distances, self.grades = distances[order], grades[order]
        self.relevant = self.grades > 0
        self.first = np.searchsorted(self.distances, self.distances, "left")  # rank of the first item tied with each
        self.tied = np.searchsorted(self.distances, self.distances, "right") - self.first

    def mean_of_ties(self, values):
        """At each rank, the mean over the items that may stand there."""
        sums = np.concatenate([[0.0], np.cumsum(values)])
        return (sums[self.first + self.tied] - sums[self.first]) / self.tied

    def average_precision(self, cutoff):
        """Sum over pairs of ranks of the probability of hits at both, divided by the later rank."""
        chance = self.mean_of_ties(self.relevant)
        hits = chance * self.tied
        both = hits * (hits - 1) / np.maximum(self.tied * (self.tied - 1), 1)  # two hits at ranks of one group
        before = np.concatenate([[0.0], np.cumsum(chance)])[self.first]
        ranks = np.arange(1, len(chance) + 1)
        terms = (chance + chance * before + (ranks - 1 - self.first) * both) / ranks
        return terms[:cutoff].sum() / max(min(cutoff or len(ranks), self.relevant.sum()), 1)

    def average_precision_in_order(self, cutoff, *, last):
        """Average precision where relevant items come last, or first, among tied items."""
        ranked = self.relevant[np.lexsort((self.relevant if last else ~self.relevant, self.distances))][:cutoff]
        ranks = np.flatnonzero(ranked) + 1
        total = min(cutoff or len(self.relevant), self.relevant.sum())
        return (np.arange(1, len(ranks) + 1) / ranks).sum() / max(total, 1)

    def discounted_gain(self, cutoff):
        gains = 2.0**self.grades - 1
        discounts = 1 / np.log2(np.arange(len(gains)) + 2)
        ideal = (np.sort(gains)[::-1] * discounts)[:cutoff].sum()
        return (self.mean_of_ties(gains) * discounts)[:cutoff].sum() / ideal if ideal else 0.0

    def cumulative_gain(self, cutoff):
        return self.mean_of_ties(self.grades)[:cutoff].mean()

    def legacy(self, cutoff):
        ranks = np.flatnonzero(self.relevant[:cutoff]) + 1
        return (np.arange(1, len(ranks) + 1) / ranks).mean() if len(ranks) else None

    def within(self, radius):
        inside = self.relevant[self.distances <= radius]
        return (inside.mean() if len(inside) else 0.0), inside.sum() / max(self.relevant.sum(), 1)

    def hits(self, cutoff):
        return self.mean_of_ties(self.relevant)[:cutoff].sum()


def ranked_lists(query, database, query_labels, database_labels):
    """Each query's list, from signs and multi-hot labels."""
    distances = (query.shape[1] - query.astype(int) @ database.T.astype(int)) // 2
    grades = query_labels.astype(int) @ database_labels.T.astype(int)
    return [Ranked(*one) for one in zip(distances, grades, query_labels, strict=True)]


def expected_figures(lists, *, bits, cutoffs, graded):
    """The dictionary of `measure(with_legacy=True)`."""

    def mean(values):
        values = [value for value in values if value is not None]
        return float(np.mean(values)) if values else None

    figures = {}
    for name in cutoffs:
        cutoff = None if name == "all" else int(name)
        precisions = [one.average_precision(cutoff) for one in lists]
        figures[str(name)] = {
            "map": mean(precisions),
            "map_by_chance": mean(
                Ranked(np.zeros_like(one.distances), one.grades, []).average_precision(cutoff) for one in lists
            ),
            "map_best": mean(one.average_precision_in_order(cutoff, last=False) for one in lists),
            "map_worst": mean(one.average_precision_in_order(cutoff, last=True) for one in lists),
            "map_answerable": mean(p if one.relevant.any() else None for p, one in zip(precisions, lists, strict=True)),
            "map_by_class": {},
            "map_legacy_deephash": mean(one.legacy(cutoff) or 0.0 for one in lists),
            "map_legacy_hashnet": mean(one.legacy(cutoff) for one in lists),
        }
        for k in sorted({k for one in lists for k in one.classes}):
            figures[str(name)]["map_by_class"][str(k)] = mean(
                p for p, one in zip(precisions, lists, strict=True) if k in one.classes
            )
        figures[str(name)]["map_mean_of_classes"] = mean(figures[str(name)]["map_by_class"].values())
        if graded:
            figures[str(name)]["ndcg"] = mean(one.discounted_gain(cutoff) for one in lists)
            figures[str(name)]["acg"] = mean(one.cumulative_gain(cutoff) for one in lists)
    balls = [[one.within(radius) for radius in range(bits + 1)] for one in lists]
    points = [point for point in POINTS if point <= len(lists[0].grades)]
    return {
        "metrics": figures,
        "precision_radius2": mean(one.within(2)[0] for one in lists),
        "empty_balls": mean(float(one.distances.min() > 2) for one in lists),
        "precision_at": {str(point): mean(one.hits(point) / point for one in lists) for point in points},
        "recall_at": {str(point): mean(one.hits(point) / max(one.relevant.sum(), 1) for one in lists) for point in points},
        "precision_recall": {
            "radius": list(range(bits + 1)),
            "precision": np.mean(balls, axis=0)[:, 0].tolist(),
            "recall": np.mean(balls, axis=0)[:, 1].tolist(),
        },
        "n_queries_without_relevant": sum(not one.relevant.any() for one in lists),
        "n_query": len(lists),
        "n_database": len(lists[0].grades),
        "bits": bits,
    }


def check(found, expected, path=""):
    """Check keys, floats within 1e-9, and everything else exactly."""
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected), path
        for key in expected:
            check(found[key], expected[key], f"{path} {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9, err_msg=path)
    elif isinstance(expected, float):
        assert isinstance(found, float), path
        assert abs(found - expected) <= 1e-9, path
    else:
        assert type(found) is type(expected), path
        assert found == expected, path


def problem(*, n_query=9, n_database=130, bits=10, classes=5, chance=0.2, seed=0):
    random = np.random.default_rng(seed)
    codes = random.choice([-1, 1], (n_query, bits)), random.choice([-1, 1], (n_database, bits))
    labels = random.random((n_query, classes)) < chance, random.random((n_database, classes)) < chance
    return codes, labels


def run(codes, labels, **more):
    """The dictionary form of what `measure` returns."""
    return run_measures(codes, labels, **more).to_dict()


def run_measures(codes, labels, **more):
    return measure(*codes, query_labels=labels[0], database_labels=labels[1], **more)


# bits, queries, items, classes, chance of a label
SIZES = {
    "10 bits": {},
    "1 bit": {"bits": 1},
    "2 bits": {"bits": 2, "n_database": 60},
    "1 query, 1 item": {"n_query": 1, "n_database": 1, "bits": 20, "chance": 0.5},
    "512 bits": {"bits": 512},
    "1,024 bits": {"bits": 1024},
    "48 bits, 33 classes": {"bits": 48, "classes": 33, "chance": 0.05},
    "many labels shared": {"chance": 0.8},
    "all relevant": {"chance": 1.0},
    "none relevant": {"chance": 0.0},
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_every_figure_equals_a_sum_over_ranked_lists(size, monkeypatch):
    """Multi-hot labels, at cutoffs from 1 to beyond the database, with several blocks of queries and with one."""
    codes, labels = problem(**size)
    cutoffs = (1, 7, "20", 1000, "all")
    bits = codes[0].shape[1]
    expected = expected_figures(ranked_lists(*codes, *labels), bits=bits, cutoffs=cutoffs, graded=True)
    check(run(codes, labels, cutoffs=cutoffs, with_legacy=True), expected)
    monkeypatch.setattr(SingleDevice, "platform", "gpu")  # the kernel of accelerators
    limits = Limits(bins=4 * 6 * (bits + 1))
    check(run(codes, labels, cutoffs=cutoffs, with_legacy=True, limits=limits), expected)


def test_every_figure_with_class_ids():
    """One class an item, a query's class that no item has, small blocks on four devices: no graded figures."""
    limits = Limits(items=8, block=4, bins=2 * 2 * 11)
    codes, _ = problem()
    ids = np.arange(9) % 4, np.arange(130) % 3
    one_hot = [np.eye(4)[side] for side in ids]
    expected = expected_figures(ranked_lists(*codes, *one_hot), bits=10, cutoffs=("all", 50), graded=False)
    assert expected["n_queries_without_relevant"] == 2
    found = run(codes, ids, cutoffs=("all", 50), with_legacy=True, devices=ShardedDatabase(jax.devices()), limits=limits)
    check(found, expected)


@pytest.mark.parametrize("size", [{}, {"bits": 3}, {"bits": 2, "n_query": 2}, {"chance": 1.0}, {"chance": 0.0}], ids=str)
def test_queries_that_are_the_database(size, monkeypatch):
    """Each query's list without its own row, where many codes are equal: every figure; both kernels, blocks, four devices."""
    (codes, _), (labels, _) = problem(**{"n_query": 60, **size})
    lists = ranked_lists(codes, codes, labels, labels)
    for i, row in enumerate(labels.astype(int) @ labels.T.astype(int)):
        others = np.arange(len(codes)) != i
        lists[i] = Ranked((codes[others] != codes[i]).sum(axis=1), row[others], labels[i])
    cutoffs, bits = (1, 7, 1000, "all"), codes.shape[1]
    expected = expected_figures(lists, bits=bits, cutoffs=cutoffs, graded=True)
    more = {"cutoffs": cutoffs, "with_legacy": True, "leave_self_out": True}
    check(run((codes, codes), (labels, labels), **more), expected)
    check(run((codes, codes.astype(np.float32)), (labels, labels.astype(int)), **more), expected)
    packed = np.packbits(codes > 0, axis=1, bitorder="little")
    check(run((packed, packed.copy()), (labels, labels), bits=bits, **more), expected)
    limits = Limits(queries=7, items=8, block=4, pairs=130)
    check(run((codes, codes), (labels, labels), devices=ShardedDatabase(jax.devices()), limits=limits, **more), expected)
    monkeypatch.setattr(SingleDevice, "platform", "gpu")  # the kernel of accelerators
    check(run((codes, codes), (labels, labels), limits=limits, **more), expected)


def test_class_ids_of_queries_that_are_the_database():
    """Ids and names; a query that is alone in its class has no relevant item."""
    codes, _ = problem(n_query=40, bits=4)
    ids = np.append(np.arange(39) % 3, 7)
    lists = []
    for i in range(40):
        others = np.arange(40) != i
        grades = (ids[others] == ids[i]).astype(int)
        lists.append(Ranked((codes[0][others] != codes[0][i]).sum(axis=1), grades, np.arange(8) == ids[i]))
    expected = expected_figures(lists, bits=4, cutoffs=("all",), graded=False)
    assert expected["n_queries_without_relevant"] == 1
    check(run((codes[0], codes[0]), (ids, ids.tolist()), with_legacy=True, leave_self_out=True), expected)
    names = [f"n{k}" for k in ids]
    found = run((codes[0], codes[0]), (names, names), leave_self_out=True)["metrics"]["all"]
    assert found["map_by_class"]["n7"] == 0.0


def test_queries_that_are_not_the_database():
    """Another order, number, magnitude, form or label, or a single code: one line."""
    (codes, _), (labels, _) = problem()
    relaxed = codes * 0.5
    for other, other_labels, message in (
        (codes[::-1], labels, "query codes aren't the database codes"),
        (codes[:8], labels[:8], "query codes aren't"),
        (relaxed, labels, "query codes aren't"),
        (codes, labels[::-1], "query labels aren't the database labels"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            run((codes, other), (labels, other_labels), leave_self_out=True)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="expected at least 2 codes"):
        run((codes[:1], codes[:1]), (labels[:1], labels[:1]), leave_self_out=True)


def test_small_classes_that_a_large_one_hides():
    """Names of classes stay names; a class counts once, however many queries it has; lists of text give the same."""
    codes = np.array([[1, 1, 1]] * 8 + [[-1, -1, -1], [1, -1, 1]])
    names = np.array(["cat"] * 8 + ["dog", "ox"])
    database = np.array([[1, 1, 1]] * 3 + [[1, 1, -1], [-1, 1, -1]])
    for labels in ((names, np.array(["cat"] * 3 + ["dog", "ox"])), (names.tolist(), ["cat"] * 3 + ["dog", "ox"])):
        measures = run_measures((codes, database), labels)
        by_class = measures.at("all").map_by_class
        # dog's query is at distance 1 of ox, 2 of dog, 3 of the cats; ox's at 1 of the cats, then 3 of ox, 2 of dog
        assert by_class == pytest.approx({"cat": 1.0, "dog": 1 / 2, "ox": 1 / 5})
        assert list(by_class) == ["cat", "dog", "ox"]
        assert measures.map == pytest.approx((8 + 1 / 2 + 1 / 5) / 10)
        assert measures.at("all").map_mean_of_classes == pytest.approx((1 + 1 / 2 + 1 / 5) / 3)
        assert ("the lowest class", ["ox"]) in table_rows(measures.to_dict())


def test_classes_of_ids_and_blocks(monkeypatch):
    """Ids with gaps, of any size and dtype; multi-hot labels in blocks of rows: loops over the queries."""
    monkeypatch.setattr(arrays, "_MULTI_HOT_ROWS", 4)
    random = np.random.default_rng(0)
    values = random.random(50)
    ids = random.choice([3, 2**31 - 1, 0, 70], 50)
    for dtype in (np.int64, np.uint32, np.float64):
        means = Labels(ids.astype(dtype)).means_by_class(values)
        assert means == pytest.approx({str(k): np.mean([v for v, i in zip(values, ids, strict=True) if i == k]) for k in ids})
        assert list(means) == ["0", "3", "70", "2147483647"]
    hot = random.random((50, 6)) < 0.3
    hot[:, 2] = False
    expected = {str(k): np.mean([v for v, row in zip(values, hot, strict=True) if row[k]]) for k in (0, 1, 3, 4, 5)}
    assert Labels(hot).means_by_class(values) == pytest.approx(expected)
    assert Labels(hot).count_by_class() == {str(k): hot[:, k].sum() for k in (0, 1, 3, 4, 5)}
    assert Labels(np.zeros((50, 3))).means_by_class(values) == {}


def test_balls_of_radius_2_by_hand():
    """Three queries: half of the ball is relevant, an empty ball (precision 0), and half again."""
    query = np.array([[-1] * 8, [1] * 8, [1, 1, 1, 1, -1, -1, -1, -1]])
    database = -np.ones((3, 8), int)
    database[0, :2], database[1, :1], database[2, :3] = 1, 1, 1  # distances 2, 1, 3; 6, 7, 5; 2, 3, 1
    found = run((query, database), (np.array([0, 0, 1]), np.array([0, 1, 1])))
    assert found["empty_balls"] == pytest.approx(1 / 3)
    assert found["precision_radius2"] == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)


def test_a_code_of_1_bit_has_balls_that_hold_everything():
    """Radius 2 is beyond the largest distance: the whole database lies within."""
    found = run((np.array([[-1], [1]]), np.array([[1], [-1], [1]])), (np.array([0, 1]), np.array([0, 0, 1])))
    assert found["precision_radius2"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found["empty_balls"] == 0


def test_a_mean_over_no_query_is_none():
    """If no query has a relevant item there is no mean over those that have one; the mean over all is 0."""
    codes, _ = problem()
    found = run(codes, (np.zeros(9, int), np.ones(130, int)), with_legacy=True)
    assert found["metrics"]["all"] == {
        "map": 0.0,
        "map_by_chance": 0.0,
        "map_best": 0.0,
        "map_worst": 0.0,
        "map_answerable": None,
        "map_by_class": {"0": 0.0},
        "map_mean_of_classes": 0.0,
        "map_legacy_deephash": 0.0,
        "map_legacy_hashnet": None,
    }
    assert found["n_queries_without_relevant"] == 9


def test_the_dictionary_is_plain_json():
    """Strict JSON returns it unchanged; the figures of published code are there if asked for."""
    codes, labels = problem()
    for with_legacy in (False, True):
        found = run(codes, labels, cutoffs=[3, "all"], with_legacy=with_legacy)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert list(found["metrics"]) == ["3", "all"]
        keys = {"map", "map_by_chance", "map_best", "map_worst", "map_answerable", "ndcg", "acg"}
        keys |= {"map_by_class", "map_mean_of_classes"}
        assert set(found["metrics"]["3"]) == keys | ({"map_legacy_deephash", "map_legacy_hashnet"} if with_legacy else set())


def test_measures_as_attributes():
    """The object has the numbers of the dictionary; ranks are whole numbers in order, and `map` is at the first cutoff."""
    codes, labels = problem()
    measures = run_measures(codes, labels, cutoffs=["7", "all"])
    figures = measures.to_dict()
    assert measures.map == measures.at(7).map == measures.at("7").map == measures.at(np.int64(7)).map
    assert measures.map == figures["metrics"]["7"]["map"] != measures.at("all").map
    for cutoff in ("7", "all"):
        assert all(getattr(measures.at(cutoff), name) == value for name, value in figures["metrics"][cutoff].items())
    assert measures.at("all").map_legacy_deephash is measures.at("all").map_legacy_hashnet is None
    assert list(measures.precision_at) == list(measures.recall_at) == [1, 5, 10, 20, 50, 100]
    assert measures.precision_at[10] == figures["precision_at"]["10"]
    assert measures.precision_recall.radius == list(range(11))
    assert (measures.n_query, measures.n_database, measures.bits) == (9, 130, 10)
    assert run_measures(codes, (np.zeros(9, int), np.zeros(130, int))).at("all").ndcg is None
    with pytest.raises(AttributeError):
        measures.bits = 3


def test_a_cutoff_that_was_not_measured_is_refused():
    """The message names those there are; without one there is no `map`."""
    codes, labels = problem()
    measures = run_measures(codes, labels, cutoffs=[7, "all"])
    for cutoff in (8, "8", 7.0):
        with pytest.raises(InputError, match="was not measured, only 7, all; fix"):
            measures.at(cutoff)
    with pytest.raises(InputError, match="was not measured, only none"):
        _ = run_measures(codes, labels, cutoffs=[]).map


def test_measures_as_text_and_in_a_notebook():
    """A few lines with the numbers that matter; every figure in the table, and none of a mean over nothing."""
    codes, labels = problem()
    measures = run_measures(codes, labels, cutoffs=[7, "all"], with_legacy=True)
    text = repr(measures)
    assert text.splitlines()[0] == "Measures: 9 queries, 130 items, 10 bits"
    assert all(f"mAP@{cutoff} {measures.at(cutoff).map:.4f}" in text for cutoff in (7, "all"))
    table = measures._repr_html_()
    for figures in measures.to_dict()["metrics"].values():
        assert f">{min(figures.pop('map_by_class').values()):.4f}<" in table
        assert all(f">{value:.4f}<" in table for value in figures.values())
    none = run_measures(codes, (np.zeros(9, int), np.ones(130, int)))
    assert ">none<" in none._repr_html_()


@pytest.mark.parametrize(
    "cutoff", ["0", "-1", "1.5", "x", "", "All", " 5", "05", "+5", 0, -3, 1.5, 5.0, None, True, float("inf")]
)
def test_a_bad_cutoff_is_refused(cutoff):
    """Expected are whole numbers from 1, as numbers or text, or "all"; the message shows what was given."""
    codes, labels = problem()
    with pytest.raises(InputError, match="expected 'all' or a rank of at least 1") as raised:
        run(codes, labels, cutoffs=["all", cutoff])
    assert repr(cutoff) in str(raised.value)


def test_cutoffs_are_numbers_or_text():
    """5, "5" and NumPy's 5 are the same; without one there are no figures by cutoff."""
    codes, labels = problem()
    found = [run(codes, labels, cutoffs=[cutoff]) for cutoff in (5, "5", np.int64(5))]
    assert found[0] == found[1] == found[2]
    assert run(codes, labels, cutoffs=[])["metrics"] == {}


def test_progress_adds_up_to_all_pairs():
    """Each pair once, twice with the pass of published code; blocks of queries of several sizes."""
    codes, labels = problem()
    limits = Limits(queries=4, items=32, block=16, pairs=260)
    for with_legacy in (False, True):
        progress = []
        run(codes, labels, with_legacy=with_legacy, limits=limits, on_progress=progress.append)
        assert sum(progress) == 9 * 130 * (1 + with_legacy)


def test_labels_that_do_not_fit_are_refused():
    """One row of labels is missing."""
    codes, labels = problem()
    with pytest.raises(InputError, match="database labels have 129 rows for 130 codes"):
        run(codes, (labels[0], labels[1][:-1]))


def nuswide():
    """Real labels of 2,100 queries and 10,500 items, 21 concepts."""
    with np.load(LABELS) as stored:
        return tuple(np.unpackbits(stored[side], axis=1, count=21) for side in ("query", "database"))


def noisy_codes(labels, *, bits, seed):
    """Codes that depend on the labels: signs of a projection of them, with noise."""
    random, projection = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(labels.shape[1], bits))
    centred = labels / np.maximum(labels.sum(axis=1, keepdims=True), 1) - 1 / labels.shape[1]
    return np.where(centred @ projection + random.normal(scale=0.25, size=(len(labels), bits)) > 0, 1, -1).astype(np.int8)


def test_figures_on_real_labels():
    """NUS-WIDE, 48 bits: 20 queries' figures equal sums over their ranked lists of 10,500 items; all queries' are plausible."""
    labels = nuswide()
    assert [side.shape for side in labels] == [(2100, 21), (10500, 21)]
    assert [int(side.sum()) for side in labels] == [6962, 30053]
    assert [int(side.sum(axis=1).max()) for side in labels] == [10, 9]
    assert min(side.sum(axis=1).min() for side in labels) == 1
    codes = tuple(noisy_codes(side, bits=48, seed=1 + i) for i, side in enumerate(labels))
    some = np.arange(0, 2100, 105)
    cutoffs = ("all", 5000)
    lists = ranked_lists(codes[0][some], codes[1], labels[0][some], labels[1])
    expected = expected_figures(lists, bits=48, cutoffs=cutoffs, graded=True)
    check(run((codes[0][some], codes[1]), (labels[0][some], labels[1]), cutoffs=cutoffs, with_legacy=True), expected)
    found = run(codes, labels, cutoffs=cutoffs)
    of_chance = 9_705_612 / (2100 * 10500)  # pairs that share a label
    for figures in found["metrics"].values():
        assert of_chance + 0.1 < figures["map"] < 0.95
        assert figures["map_worst"] < figures["map"] < figures["map_best"]
        assert figures["map"] == figures["map_answerable"]
    assert found["precision_recall"]["precision"][-1] == pytest.approx(of_chance, abs=1e-12)
    assert found["metrics"]["all"]["acg"] == pytest.approx(15_924_474 / (2100 * 10500), abs=1e-12)  # labels shared, a pair
    assert found["n_queries_without_relevant"] == 0


def test_cutoffs_as_text_are_refused():
    """Text is not taken as a list of its characters."""
    with pytest.raises(InputError, match="expected a list"):
        check_cutoffs("5000")
