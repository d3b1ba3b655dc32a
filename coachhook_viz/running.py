"""An edited model as a model of transformers, for libraries that know nothing of edits.

as_model    a model of the base model's own class; hook layers hang only while it runs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache, wraps
from types import MethodType, new_class
from typing import Any, NoReturn

from torch import Tensor, nn
from transformers import PreTrainedModel

from coachhook_viz.editing.hooks import Attachment, Hook, hung
from coachhook_viz.editing.state import EditState
from coachhook_viz.models import LanguageModel

_OF_THE_BASE = (  # what accelerate, or `attached`, puts onto a model itself
    "forward", "_old_forward", "_hf_hook", "generate", "prepare_inputs_for_generation",
)  # fmt: skip
_CHANGES = (
    "load_state_dict", "resize_token_embeddings", "set_input_embeddings", "set_output_embeddings",
    "init_weights", "add_adapter", "load_adapter", "dequantize", "set_attn_implementation",
    "gradient_checkpointing_enable",
)  # fmt: skip
_SHARED = (
    "this edited model has no weights of its own, they are its base model's, which stays as it is"
)


def as_model(lm: LanguageModel, state: EditState) -> PreTrainedModel:
    """A model of transformers that says what `lm` says under `state`.

    It shares all weights and modules with ``lm.model``, and is of the same class. Its hook layers
    hang on them while it runs and at no other time. Settings of generation are its own. What would
    change the weights is refused.

    Parameters
    ----------
    lm : LanguageModel
    state : EditState
    """
    return _model(lm, state.hook_layers(lm.dtype))


def _model(lm: LanguageModel, hook_layers: Mapping[int, Hook]) -> PreTrainedModel:
    base = lm.model
    own_class: Any = type(base)
    model: Any = object.__new__(_edited(own_class))
    nn.Module.__init__(model)
    own = vars(model)
    kept = {name: value for name, value in vars(base).items() if name not in (*own, *_OF_THE_BASE)}
    own |= kept | {"training": base.training}
    for registry in ("_modules", "_parameters", "_buffers"):
        own[registry] = dict(vars(base)[registry])
    own["config"] = deepcopy(base.config)
    own["generation_config"] = deepcopy(base.generation_config)
    own["_attachment"] = Attachment(lm, hook_layers)
    return model  # type: ignore[no-any-return]


@cache
def _edited(own: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The class `own` with hook layers: of the same name, as libraries ask for it."""
    plain: Any = own

    @wraps(plain.forward)
    def forward(self: Any, *args: Any, **options: Any) -> Any:
        with hung(self._attachment):
            return self._attachment.lm.model(*args, **options)

    @wraps(plain.generate)
    def generate(self: Any, *args: Any, **options: Any) -> Any:
        with hung(self._attachment):
            return self._attachment.generate(MethodType(plain.generate, self), *args, **options)

    @wraps(plain.prepare_inputs_for_generation)
    def prepare(self: Any, *args: Any, **options: Any) -> Any:
        given = MethodType(plain.prepare_inputs_for_generation, self)
        return self._attachment.prepare(given, *args, **options)

    def copied(self: Any, memo: dict[int, Any]) -> Any:
        lm = self._attachment.lm
        other: Any = _model(
            replace(lm, model=deepcopy(lm.model, memo)), self._attachment.hook_layers
        )
        vars(other)["config"] = deepcopy(self.config, memo)
        vars(other)["generation_config"] = deepcopy(self.generation_config, memo)
        return other

    def shallow(self: Any) -> Any:
        return _model(self._attachment.lm, self._attachment.hook_layers)

    def packed(self: Any, protocol: Any) -> NoReturn:
        raise ValueError(
            f"{_SHARED}, so it cannot be pickled: use session.save(folder), and open that there"
        )

    def apply(self: Any, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        if any(change(tensor) is not tensor for tensor in (*self.parameters(), *self.buffers())):
            raise ValueError(f"{_SHARED}: move that one (session.lm.model), or load it elsewhere")
        return self

    def train(self: Any, mode: bool = True) -> Any:
        if mode:
            raise ValueError(f"{_SHARED}: to train an edited one, session.export it first")
        return self

    def requires_grad_(self: Any, requires_grad: bool = True) -> Any:
        if requires_grad:
            raise ValueError(f"{_SHARED}: gradients of inputs there are, of weights there are none")
        return self

    def save_pretrained(self: Any, *args: Any, **options: Any) -> NoReturn:
        raise ValueError(
            f"{_SHARED}, and files of them would lack the edits: use session.export(folder), or"
            " session.save(folder)"
        )

    def changed(self: Any, *args: Any, **options: Any) -> NoReturn:
        raise ValueError(f"{_SHARED}: change that one before the session begins")

    methods = {
        "__module__": own.__module__,
        "__doc__": own.__doc__,
        "forward": forward,
        "generate": generate,
        "prepare_inputs_for_generation": prepare,
        "__copy__": shallow,
        "__deepcopy__": copied,
        "__reduce_ex__": packed,
        "_apply": apply,
        "train": train,
        "requires_grad_": requires_grad_,
        **dict.fromkeys(("save_pretrained", "push_to_hub"), save_pretrained),
        **dict.fromkeys(_CHANGES, changed),
    }
    return new_class(own.__name__, (own,), {}, lambda body: body.update(methods))
