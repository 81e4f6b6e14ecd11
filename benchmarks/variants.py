"""Changed ADSQs that the comparison can run: one change each to the tuned one."""

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "no label_net": {"objective.label_net": False},
    "no twin": {"objective.twin": False},
    "no difference": {"objective.difference": False},
    "codes fixed": {"objective.update_codes": False},
    "no likelihood": {"objective.weights.likelihood": 0.0},
    "no guidance": {"objective.weights.guidance": 0.0},
    "no quantization": {"objective.weights.quantization": 0.0},
    "no balance": {"objective.weights.balance": 0.0},
    "no label_codes": {"objective.weights.label_codes": 0.0},
}
