"""benchmarks/speed/profile_step.py: each operation of XLA's program is counted as the kind of kernel that it is."""

import importlib.util
import json

import pytest

from benchmarks.speed import profile_step
from benchmarks.speed.profile_step import KINDS

pytestmark = pytest.mark.benchmark

TRUNK = "ImgNet.trunk/backbone"
FORWARD, BACKWARD = f"jit(run)/jvp(ImgNet)/{TRUNK}", f"jit(run)/transpose(jvp(ImgNet))/{TRUNK}"
KERNELS = [(3, 3, 64, 64), (3, 3, 256, 512), (1, 1, 64, 128)]


def line(name, shape, opcode, source):
    """Write a line of a compiled program."""
    metadata = f', metadata={{op_name="{source}" stack_frame_id=3}}' if source else ""
    return f"  %{name} = f32[{','.join(map(str, shape))}]{{1,0}} {opcode}(%a, %b), kind=kCustom{metadata}"


@pytest.mark.parametrize(
    ("name", "shape", "opcode", "source", "kind"),
    [
        (
            "ynn_fusion.1",
            (32, 16, 16, 64),
            "fusion",
            f"{FORWARD}/stage1_block1/conv2/conv_general_dilated",
            profile_step.FORWARD,
        ),
        ("ynn_fusion.2", (32, 32, 32, 64), "fusion", f"{FORWARD}/stem/conv_general_dilated", profile_step.FORWARD),
        ("convolution.3", (32, 16, 16, 64), "convolution", f"{BACKWARD}/a/conv2/conv_general_dilated", profile_step.INPUTS),
        ("ynn_fusion.4", (64, 3, 3, 64), "fusion", "", profile_step.WEIGHTS),
        # patches of 512 pixels for a kernel of 256 channels are as large as the kernel from 256 to 512
        ("ynn_fusion.5", (512, 2304), "fusion", f"{BACKWARD}/a/conv1/cond/branch_0_fun/dot_general", profile_step.INPUTS),
        ("dot.6", (2304, 512), "dot", f"{BACKWARD}/a/conv1/cond/branch_0_fun/transpose", profile_step.WEIGHTS),
        ("slice.7", (32, 4, 4, 256), "fusion", f"{FORWARD}/a/conv1/cond/branch_0_fun/slice", profile_step.PATCHES),
        ("transpose_copy_fusion.8", (64, 32, 16), "fusion", "", profile_step.COPIES),
        ("fusion.9", (64,), "fusion", f"{BACKWARD}/a/shortcut_norm/shortcut_norm/reduce_sum", profile_step.NORM),
        ("fusion.10", (32, 16, 16, 64), "fusion", f"{FORWARD}/cond/branch_0_fun/max", profile_step.POOL),
        ("fusion.11", (32, 16, 16, 64), "fusion", f"{BACKWARD}/stage1_block0/select_n", profile_step.RELU),
        ("dot.12", (32, 24), "dot", "jit(run)/jvp(ImgNet)/hash/dot_general", profile_step.HEADS),
        ("fusion.13", (32, 1000), "fusion", "jit(run)/transpose(jvp())/div", profile_step.HEADS),
        ("fusion.14", (64, 64), "fusion", "jit(run)/square", profile_step.OPTIMIZER),
        ("fusion.15", (), "fusion", "", profile_step.OTHER),
    ],
)
def test_kinds(name, shape, opcode, source, kind):
    """Forward, both gradients, what products need, norms, pooling, heads and optimiser."""
    assert profile_step.kinds_of_program(line(name, shape, opcode, source), kernels=KERNELS) == {name: kind}


def test_the_table_adds_up():
    """Differences are shares of torch's whole."""
    ours, theirs = dict.fromkeys(KINDS, 10.0), dict.fromkeys(KINDS, 5.0)
    lines = profile_step.table({"adsq_jax": ours, "torch": theirs}).splitlines()
    assert len(lines) == len(KINDS) + 3
    assert lines[1].split()[-4:] == ["10", "5", f"+{100 / len(KINDS):.1f}", "%"]
    assert lines[-2].split()[-4:] == ["60", "30", "+50.0", "%"]
    assert lines[-1].split()[-4:] == ["120", "60", "+100.0", "%"]


if importlib.util.find_spec("torch"):  # the extra `test` doesn't install it
    # Imports PyTorch, and compiles the step of a ResNet.
    def test_both_sides_are_profiled(tmp_path):
        """Toy sizes: each kind that a side has took time, and little of it is unknown."""
        profile_step.main(["--quick", "--turns=1", f"--out={tmp_path}"])
        spent = json.loads((tmp_path / "profile.json").read_text())["milliseconds"]
        absent = {
            "adsq_jax": {profile_step.BACKWARD},
            "torch": {profile_step.INPUTS, profile_step.WEIGHTS, profile_step.PATCHES},
        }
        for side, kinds in spent.items():
            assert kinds.keys() == set(KINDS)
            assert all(kinds[kind] > 0 for kind in kinds.keys() - absent[side] - {profile_step.COPIES, profile_step.OTHER})
            assert not any(kinds[kind] for kind in absent[side])
        assert spent["adsq_jax"][profile_step.OTHER] < 0.2 * sum(spent["adsq_jax"].values())
