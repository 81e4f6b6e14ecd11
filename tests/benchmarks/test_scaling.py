"""benchmarks/speed/scaling.py: its formulas agree with the lowered programs, and its table has its figures."""

import json
from dataclasses import replace

import pytest

from benchmarks import rows
from benchmarks.speed import scaling

pytestmark = pytest.mark.benchmark


def test_resnet50_has_the_published_size():
    """4.09e9 multiplications an image of 224x224 and 23,508,032 parameters, as torchvision's without its classifier."""
    case = replace(scaling.CASES["ImageNet-1k"], features=0, bits=0)
    assert scaling.multiplications(case) == pytest.approx(4.09e9, rel=2e-3)
    assert scaling.parameters(case) == 23_508_032
    assert sum(x.times for x in case.layers) == 53


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("case", [*scaling.QUICK.values(), scaling.CASES["10,000 images, 100 classes"]])
def test_operations_are_those_of_the_formula(case, devices):
    """Backbone, heads, pair terms and guidance, forward and backward: by the shapes in the lowered program, to a thousandth."""
    formula = scaling.by_formula(case, devices)
    program = scaling.from_program(case, devices, compiled=False)
    assert not scaling.disagreements(formula, program, case=case)
    backbone = formula["operations"]["backbone"]
    assert program["operations"]["convolutions"] == pytest.approx(backbone, rel=1e-3)
    assert program["operations"]["products"] == pytest.approx(sum(formula["operations"].values()) - backbone, rel=1e-3)


def test_disagreements():
    """A tenth more operations, another number of parameters, a collective without a purpose."""
    case = scaling.QUICK["100 images"]
    formula = scaling.by_formula(case, 4)
    operations = {"convolutions": formula["operations"]["backbone"] * 1.11, "products": 1.0}
    program = {"operations": operations, "parameters": 1, "bank_bytes": formula["bank_bytes"]}
    wrong = scaling.disagreements(formula, {**program, "bytes": {**formula["bytes"], "unexplained": 4}}, case=case)
    assert [text.split(":")[0] for text in wrong] == [
        "operations of convolutions",
        "operations of products",
        "parameters",
        "bytes",
    ]


# Starts the script, which compiles each size.
def test_the_script_compares_and_makes_the_table(tmp_path):
    """Toy sizes on 4 devices, 32 by formula; a batch larger than the training set is left out."""
    table = scaling.compare(scaling.QUICK, compiled=(4,), formula_only=(32,))
    cells = [(row["case"], row["devices"]) for row in table]
    assert cells == [("100 images", 4), ("1,000 images", 4), ("1,000 images", 32)]
    assert table[0]["bytes"] == table[0]["program"]["bytes"] == table[1]["program"]["bytes"]
    content = {"rows": table, "machine": "a machine", "date": "today"}
    content["network"] = {"backbone": "small_cnn", "side": 16, "bits": 12, "batch_a_device": 4}
    (tmp_path / "scaling.json").write_text(json.dumps(content))
    lines = rows.scaling_rows(tmp_path / "scaling.json").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["4", "32"]
    assert [line.split("|")[-2].strip() for line in lines[2:4]] == ["yes", "no"]
    assert [line.split("|")[1].strip() for line in lines[9:11]] == ["4", "32"]  # what is sent
    assert "100 images / 1,000 images" in lines[-1]


def test_a_disagreement_ends_the_script(monkeypatch):
    """A formula with another number of terms disagrees with what the program sends."""
    monkeypatch.setattr(scaling, "TERMS", 7)
    with pytest.raises(SystemExit, match="100 images, 2 devices: bytes"):
        scaling.compare({"100 images": scaling.QUICK["100 images"]}, compiled=(2,), formula_only=())
