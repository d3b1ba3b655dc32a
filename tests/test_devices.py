"""A model spread over devices: what each part computes with is where that part is.

There may be one device only, so places are made up: a mode of torch remembers where each tensor
would be, and refuses what real devices refuse, a computation with tensors of two places.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from hands import STRONG
from tiny import random_model, tiny_facts, tiny_moments, tiny_session, tiny_tokenizer
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

import coachhook_viz as cv

HOME, FIRST, SECOND = torch.device("cpu"), torch.device("cpu", 1), torch.device("cpu", 2)


class Places(TorchFunctionMode):
    """Within it a tensor says the place that it was put to, and no two places meet."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Any = WeakTensorKeyDictionary()

    def put(self, value: Any, place: torch.device) -> Any:
        def one(value: Any) -> Any:
            if isinstance(value, Tensor):
                self.places[value] = place
            return value

        return tree_map(one, value)

    def of(self, tensor: Tensor) -> torch.device:
        return self.places.get(tensor, HOME)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            if func.__self__.__name__ == "device":
                return self.of(args[0])
            return self.put(func(*args, **kwargs), self.of(args[0]))
        if name in ("to", "cpu"):
            return self._moved(name, args, kwargs)
        if name == "grad":  # of a loss, where what it is a slope of is
            slopes = func(*args, **kwargs)
            return [self.put(s, self.of(t)) for s, t in zip(slopes, args[1], strict=True)]
        wanted = kwargs.pop("device", None)
        met = self._met(func, name, args, kwargs)
        found = func(*args, **kwargs)
        place = torch.device(wanted) if wanted is not None else met
        return self.put(found, place) if place != HOME else found

    def _moved(self, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
        given = [*args[1:], kwargs.pop("device", None)]
        place, kept = self.of(args[0]), []
        for one in given:
            if isinstance(one, torch.device | str):
                place = torch.device(one)
            elif isinstance(one, Tensor):
                place = self.of(one)
                kept.append(one.dtype)
            elif one is not None:
                kept.append(one)
        if name == "cpu":
            place = HOME
        found = Tensor.to(args[0], *kept, **kwargs) if kept or kwargs else args[0]
        if place != self.of(found):
            found = self.put(found.view_as(found), place)
        return found

    def _met(self, func: Any, name: str, args: Any, kwargs: Any) -> torch.device:
        """Where a computation takes place."""
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        if name in ("__getitem__", "__setitem__"):  # a place may be told from home
            tensors = [t for t in tensors if self.of(t) != HOME or t is args[0]]
        many = [t for t in tensors if t.dim()]
        places = {self.of(t) for t in many or tensors}
        if len(places) > 1:
            raise RuntimeError(f"{name}: tensors of several places, {sorted(map(str, places))}")
        return places.pop() if places else HOME


def spread(family: str, places: Places) -> cv.LanguageModel:
    """Blocks 0 to 2 at one place, the others and the head at another, as accelerate has them."""
    model = random_model(family)
    for name, module in model.named_modules():
        block = name.rpartition(".")[2].isdecimal()
        if list(module.children()) and module is not model and not block:
            continue
        number = next((int(part) for part in name.split(".") if part.isdecimal()), None)
        late = number > 2 if number is not None else "embed" not in name and "wte" not in name
        place = SECOND if late and module is not model else FIRST
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        for tensor in own:
            place = places.places.setdefault(tensor, place)  # a tied one stands there already
        add_hook_to_module(module, AlignDevicesHook(place, io_same_device=module is model))
    return cv.LanguageModel(model, tiny_tokenizer(), "spread", "He ")


@pytest.fixture
def places() -> Iterator[Places]:
    with Places() as places:
        yield places


def test_the_mode_refuses_what_devices_refuse(places: Places) -> None:
    one, other = torch.ones(2).to(FIRST), torch.ones(2, device=SECOND)
    assert (one + one).device == FIRST
    assert one[torch.tensor([0])].device == FIRST
    assert one.to(other).device == SECOND
    with pytest.raises(RuntimeError, match="several places"):
        one + other
    with pytest.raises(RuntimeError, match="several places"):
        one + torch.ones(2)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"scope": "zscore"}),
        ("gemma2", {"scope": "zscore"}),
        ("gpt2", {"scope": "match"}),
        ("llama", {"scope": "two-key", "site": "answer", "layers": (3,), "subject_layer": 1}),
        ("gemma2", {"scope": "off", "method": "ultraedit"}),
        ("llama", {"scope": "off", "method": "encore"}),
    ],
    ids=str,
)
def test_a_model_over_two_devices_is_edited_as_on_one(
    family: str, changes: dict[str, Any], places: Places
) -> None:
    plain = cv.LanguageModel(random_model(family), tiny_tokenizer(), "plain", "He ")
    lm = spread(family, places)
    assert (lm.device, lm.device_of(2), lm.device_of(3)) == (FIRST, FIRST, SECOND)
    changes = {**STRONG, "steps": 4, **changes}
    facts, prompt = tiny_facts(3), tiny_facts()[0].text
    expected, found = tiny_session(plain, **changes), tiny_session(lm, **changes)
    expected.apply(facts)
    found.apply(facts)
    for layer in expected.config.layers:
        one, other = expected.delta_weight(layer), found.delta_weight(layer).cpu()
        assert (one - other).norm() < 1e-3 * one.norm()
    assert found.generate(prompt, 4) == expected.generate(prompt, 4)
    for ask in (
        lambda session: session.evaluate()["value"].tolist(),
        lambda session: session.lens(prompt)["probability"].tolist(),
        lambda session: session.drift()["value"].tolist(),
        lambda session: session.what_else(budget=20)["p_after"].tolist(),
        lambda session: session.scope(prompt).in_scope.flatten().tolist(),
        lambda session: session.predict(prompt)["probability"].tolist(),
    ):
        assert ask(found) == pytest.approx(ask(expected), rel=1e-3, abs=1e-5)
    assert "spread" in repr(found)


def test_the_looks_into_a_model_over_two_devices(places: Places) -> None:
    from coachhook_viz.editing.progress import Watch
    from coachhook_viz.measure.trace import causal_trace, key_shares

    lm = spread("llama", places)
    lm.check()
    assert len(key_shares(lm, Watch())) == 5
    facts = [cv.Fact(f.prompt, f.subject, f.target, truth="Rome") for f in tiny_facts(2)]
    assert len(causal_trace(lm, facts, Watch())) == 10
    moments = cv.collect_moments(lm, ["He left today. " * 5] * 40, (1, 4))
    assert {*moments} == {1, 4}
    assert tiny_moments(lm)
