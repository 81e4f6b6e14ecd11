"""Write the files beside this one with torch (2.14.1 for those in the repository): python tests/models/weights_data/make.py."""

from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent


def state():
    """Every dtype and every kind of view; tests/models/test_weight_files.py knows the values."""
    base = torch.arange(12, dtype=torch.float32)
    tied = torch.tensor([[1.5, -2.5]])
    tensors = OrderedDict(
        float=torch.arange(6, dtype=torch.float32).reshape(2, 3) / 4,
        double=torch.tensor([0.1, -1e-3], dtype=torch.float64),
        half=torch.tensor([0.5, -2.0, 65504.0], dtype=torch.float16),
        bfloat16=torch.tensor([1.0, -3.140625, 3e38], dtype=torch.bfloat16),
        long=torch.tensor(7_000_000_000),
        int=torch.tensor([-5, 6], dtype=torch.int32),
        short=torch.tensor([-300], dtype=torch.int16),
        char=torch.tensor([-128, 127], dtype=torch.int8),
        byte=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.tensor([3.25])),
        transposed=torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),
        channels_last=torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        strided=base[1::3],
        shared_head=base[:5],
        shared_tail=base[5:].reshape(7),
        tied=tied,
        tied_again=tied,
    )
    tensors._metadata = OrderedDict({"": {"version": 1}})
    tensors["note"] = "no tensor"
    return tensors


def checkpoint():
    """Of a training run on several GPUs: the weights among other things, each name with DataParallel's prefix."""
    model = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) + number)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    return {
        "epoch": 3,
        "arch": "tiny",
        "best": torch.tensor(0.5),
        "history": [1.0, 2, None, True],
        "size": torch.Size([2, 3]),
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def main():
    """Writes all files."""
    torch.save(state(), HERE / "zip.pth")
    torch.save(state(), HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state(), HERE / "protocol4.pt", pickle_protocol=4)
    torch.save(state(), HERE / "protocol5_legacy.bin", pickle_protocol=5, _use_new_zipfile_serialization=False)
    torch.save(checkpoint(), HERE / "checkpoint.pth.tar")
    torch.save(checkpoint(), HERE / "checkpoint_legacy.pth.tar", _use_new_zipfile_serialization=False)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    torch.save(model, HERE / "module.pth")
    torch.save(model, HERE / "module_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"expanded": torch.ones(1).expand(1000)}, HERE / "expanded.pth")
    torch.save({"negated": torch.tensor([1 + 2j]).conj().imag}, HERE / "negated.pth")
    torch.save({"complex": torch.tensor([1 + 2j])}, HERE / "complex.pth")
    torch.save({"a": torch.arange(3.0)}, HERE / "tiny.pth")
    torch.save({"a": torch.arange(3.0)}, HERE / "tiny_legacy.pth", _use_new_zipfile_serialization=False)
    torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)).save(HERE / "script.pt")


if __name__ == "__main__":
    main()
