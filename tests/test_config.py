from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_model

from coachhook_viz import EditConfig, LanguageModel


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"layers": ()}, "layers"),
        ({"layers": (3, 2)}, "layers"),
        ({"layers": (2, 2)}, "layers"),
        ({"layers": (-1,)}, "layers"),
        ({"covariance_weight": 0.0}, "covariance_weight"),
        ({"covariance_weight": float("nan")}, "covariance_weight"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"kl_weight": "much"}, "kl_weight"),
        ({"alpha": True}, "alpha"),
        ({"match_threshold": 1.5}, "match_threshold"),
        ({"scope": "zcore"}, "scope is 'zcore': use one of"),
        ({"calibration": "none"}, "calibration"),
        ({"context_templates": ()}, "context_templates"),
        ({"context_templates": ((),)}, "context_templates"),
        ({"context_templates": (("He. {}",),)}, "bare"),
        ({"context_templates": (("{}",), ("no slot",))}, "no slot"),
        ({"context_templates": (("{}",), ("{} after",))}, "after"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        EditConfig(**{"layers": (1, 2), "covariance_weight": 1.0, **change})


def test_known_models_get_known_settings() -> None:
    lm = tiny_model("gpt2", n_layer=20)
    named = LanguageModel(lm.model, lm.tokenizer, "openai-community/gpt2-xl")
    config = EditConfig.for_model(named, alpha=1.0)
    assert config.layers == (13, 14, 15, 16, 17)
    assert config.covariance_weight == 20000.0
    assert config.alpha == 1.0


def test_unknown_settings_and_layers_are_refused() -> None:
    with pytest.raises(TypeError, match="no setting lamda"):
        EditConfig.for_model(tiny_model(), lamda=3)
    with pytest.raises(ValueError, match="has blocks 0 to 4"):
        EditConfig.for_model(tiny_model(), layers=(7,), covariance_weight=1.0)
