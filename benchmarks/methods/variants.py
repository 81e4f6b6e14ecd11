"""Variants of ADSQ for the comparison: name -> changes to the tuned config; one that changes nothing is left out."""

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "no label_net": {"objective.label_net": False},
    "no twin": {"objective.twin": False},
    "no difference": {"objective.difference": False},
    "no code_guidance": {"objective.weights.code_guidance": 0.0},
    "pairs for code_guidance": {"objective.weights.code_guidance": 0.0, "objective.weights.likelihood": 0.5},
    "code_guidance at scale 5": {"objective.code_scale": 5.0},
    "code_guidance at scale 20": {"objective.code_scale": 20.0},
    "no guidance": {"objective.weights.guidance": 0.0},
    "no bit_likelihood": {"objective.weights.bit_likelihood": 0.0},
    "quantization for bit_likelihood": {"objective.weights.bit_likelihood": 0.0, "objective.weights.quantization": 0.1},
    "no balance": {"objective.weights.balance": 0.0},
    "codes fixed": {"objective.update_codes": False},
    "no label_codes": {"objective.weights.label_codes": 0.0},
    "label_codes 1": {"objective.weights.label_codes": 1.0},
    "LabelNet of 512 units": {"label_net.hidden": 512},
    "LabelNet of 50 steps": {"label_net.steps": 50},
    "3 rounds of 10 epochs": {"train.rounds": 3, "train.epochs_per_round": 10},
    "30 rounds of 1 epoch": {"train.rounds": 30, "train.epochs_per_round": 1},
}
