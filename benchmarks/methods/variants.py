"""Variants of ADSQ for the comparison: name -> changes to the tuned config; one that changes nothing is left out."""

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "no label_net": {"objective.label_net": False},
    "no twin": {"objective.twin": False},
    "no difference": {"objective.difference": False},
    "separated": {"objective.separate": True},
    "not separated": {"objective.separate": False},
    "head tanh": {"objective.head": "tanh"},
    "head layer_norm": {"objective.head": "layer_norm"},
    "no likelihood": {"objective.weights.likelihood": 0.0},
    "with likelihood": {"objective.weights.likelihood": 1.0},
    "no neighbours": {"objective.weights.neighbours": 0.0},
    "with neighbours": {"objective.weights.neighbours": 0.5},
    "no code_guidance": {"objective.weights.code_guidance": 0.0},
    "with code_guidance": {"objective.weights.code_guidance": 0.5},
    "no guidance": {"objective.weights.guidance": 0.0},
    "no quantization": {"objective.weights.quantization": 0.0},
    "no bit_likelihood": {"objective.weights.bit_likelihood": 0.0},
    "no balance": {"objective.weights.balance": 0.0},
    "no consistency": {"objective.weights.consistency": 0.0},
    "with consistency": {"objective.weights.consistency": 3.0},
    "codes fixed": {"objective.update_codes": False},
    "no label_codes": {"objective.weights.label_codes": 0.0},
    "label_codes 1": {"objective.weights.label_codes": 1.0},
    "LabelNet of 512 units": {"label_net.hidden": 512},
    "LabelNet of 50 steps": {"label_net.steps": 50},
    "3 rounds of 10 epochs": {"train.rounds": 3, "train.epochs_per_round": 10},
    "30 rounds of 1 epoch": {"train.rounds": 30, "train.epochs_per_round": 1},
}
