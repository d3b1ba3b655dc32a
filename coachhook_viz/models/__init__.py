"""Causal language models, and where their parts are."""

from coachhook_viz.models.architectures import Architecture
from coachhook_viz.models.language_model import LanguageModel
from coachhook_viz.models.sources import is_local, load_model

__all__ = ["Architecture", "LanguageModel", "is_local", "load_model"]
