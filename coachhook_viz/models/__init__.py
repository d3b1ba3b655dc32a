"""Causal language models, and where their parts are."""

from coachhook_viz.models.architectures import Architecture
from coachhook_viz.models.language_model import LanguageModel, load_model

__all__ = ["Architecture", "LanguageModel", "load_model"]
