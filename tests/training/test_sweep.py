"""Sweeps: every combination once, in its folder, with means over seeds; what has finished isn't trained again."""

import json

import numpy as np
import pytest

from adsq_jax.errors import InputError
from adsq_jax.training import sweep


def result(value):
    return {"map": value, "map_at": "all", "map_by_query_net": {}, "query_net": "ff", "seconds": 2.0, "config_sha256": "a"}


def test_all_combinations():
    """Two by three values give six runs, the last key changing fastest; their folders are named by the values."""
    grid = sweep.parse(" bits=12,24,48 ;seed=0,1;")
    assert grid == {"bits": ["12", "24", "48"], "seed": ["0", "1"]}
    names = [sweep.folder_name(values) for values in sweep.combinations(grid)]
    assert names[:3] == ["bits=12,seed=0", "bits=12,seed=1", "bits=24,seed=0"]
    assert len(set(names)) == 6


@pytest.mark.parametrize("text", ["", ";", "bits", "bits=", "a=1,,2", "a=1,1", "a=1;a =2", "a=x/y", "=3"])
def test_bad_values_are_one_line(text):
    """The message shows how a sweep is written."""
    with pytest.raises(InputError, match=r"--sweep.*fix: "):
        sweep.parse(text)
    with pytest.raises(InputError, match="1,030,301 runs: expected 1 to 1,000"):
        sweep.combinations({name: range(101) for name in "abc"})


def test_a_run_that_fails_stops_no_other(tmp_path):
    """sweep.json has the results and the error; the table averages over seeds and names what failed."""
    values = sweep.combinations({"bits": [12, 24], "seed": [0, 1, 2]})

    def train(of, folder):
        assert folder == tmp_path / f"bits={of['bits']},seed={of['seed']}"
        if of == {"bits": 24, "seed": 2}:
            raise InputError("diverged")
        return result(of["bits"] / 100 + of["seed"] / 10)

    said = []
    rows = sweep.train_each(values, train, tmp_path, say=said.append)
    assert said[0] == "run 1 of 6: bits=12,seed=0"
    assert json.loads((tmp_path / "sweep.json").read_text()) == {"runs": rows}
    short, long = sweep.means(rows)
    assert short["map"] == pytest.approx(0.22)
    assert short["deviation"] == pytest.approx(np.std([0.12, 0.22, 0.32], ddof=1))
    assert long["maps"] == pytest.approx([0.24, 0.34])
    head, first, second, failed = sweep.table(rows).splitlines()
    assert head.split() == ["bits", "runs", "mAP", "at", "deviation", "seconds"]
    assert first.split() == ["12", "3", "0.2200", "all", "0.1000", "2"]
    assert second.split() == ["24", "2", "0.2900", "all", "0.0707", "2"]
    others = sweep.train_each([{"bits": 48, "seed": 0}], lambda of, folder: result(0.5), tmp_path, say=said.append)
    assert json.loads((tmp_path / "sweep.json").read_text()) == {"runs": others + rows}
    assert failed == "bits=24,seed=2 failed: diverged"


@pytest.mark.parametrize("content", [{}, [], None, {"map": "x"}, {"map": 0.5}])
def test_a_damaged_result_is_an_error_of_its_run(content, tmp_path):
    """It is named, nothing is averaged with it, and the other run counts."""
    answers = iter([content, result(0.5)])
    rows = sweep.train_each([{"seed": 0}, {"seed": 1}], lambda of, folder: next(answers), tmp_path, say=lambda _: None)
    assert "seed=0/result.json is not a result of a run" in rows[0]["error"]
    assert [one["maps"] for one in sweep.means(rows)] == [[0.5]]


def test_values_with_dots_and_runs_that_are_the_same():
    """A rate may be written .1; two combinations of the same config are refused by name."""
    assert sweep.parse("rate=.1,.2") == {"rate": [".1", ".2"]}
    sweep.check_different({"a=1": "x", "a=2": "y"}, count=2)
    with pytest.raises(InputError, match="a=1 and a=2 are the same run; fix: give each value once"):
        sweep.check_different({"a=1": "x", "a=2": "x"}, count=2)
    with pytest.raises(InputError, match="a=0 and a=0 are the same run"):
        sweep.check_different({"a=0": "x"}, count=2)


@pytest.mark.parametrize("content", ["[]", "{}", '{"runs": [3]}', "{"])
def test_a_file_that_is_no_sweep_is_left_alone(content, tmp_path):
    """Nothing is trained, and nothing overwritten."""
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(InputError, match="fix: restore"):
        sweep.train_each([{"seed": 0}], lambda of, folder: 1 / 0, tmp_path, say=print)
    assert (tmp_path / "sweep.json").read_text() == content


def test_the_folder_of_a_run_is_refused(tmp_path):
    """A sweep writes no folders into a run's."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="is the folder of one run"):
        sweep.train_each([{"seed": 0}], lambda of, folder: result(0.5), tmp_path, say=print)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
