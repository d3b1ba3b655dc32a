from __future__ import annotations

import pytest
import torch
from tiny import LAYERS, WORDS, tiny_model, tiny_moments

from coachhook_viz.editing.forward import Batch, run_to
from coachhook_viz.editing.moments import (
    MomentsWarning,
    cached_moments,
    check_moments,
    collect,
    corpus,
    inverse,
)
from coachhook_viz.editing.tokens import tokenize

TEXTS = [" ".join(WORDS[i : i + 3 + i % 7]) for i in range(40)] * 3


def test_collect_is_the_mean_outer_product_of_every_real_token() -> None:
    lm = tiny_model(lead="He ")
    found = collect(lm, LAYERS, TEXTS)
    for layer in LAYERS:
        rows = []
        for text in TEXTS:
            batch = Batch.of([tokenize(lm, text)], lm.device)
            rows.append(run_to(lm, batch, layer, keys_of=[layer])[1][layer][0].double())
        keys = torch.cat(rows)
        torch.testing.assert_close(found[layer], keys.T @ keys / len(keys), rtol=1e-5, atol=1e-6)


def test_too_few_tokens_are_said_and_still_give_a_usable_inverse() -> None:
    lm = tiny_model()
    with pytest.warns(MomentsWarning, match="9 tokens are few .* width 64"):
        moment = collect(lm, [1], [" ".join(WORDS[:9])])[1]
    with pytest.warns(MomentsWarning, match="singular"):
        preserved = inverse(moment, 30.0)
    assert torch.isfinite(preserved).all()
    assert (torch.linalg.eigvalsh(preserved) > 0).all()


def test_inverse_is_exact_where_c0_is_regular() -> None:
    moment = tiny_moments(tiny_model())[1]
    torch.testing.assert_close(inverse(moment, 7.0), torch.linalg.inv(7 * moment))


@pytest.mark.parametrize(
    ("moment", "match"),
    [
        (torch.ones(2, 3), "must be"),
        (torch.zeros(3, 3), "zero"),
        (torch.full((3, 3), torch.nan), "not finite"),
    ],
)
def test_unusable_moments_are_refused(moment: torch.Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        inverse(moment, 1.0)


def test_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no token"):
        collect(tiny_model(), [1], [])


def test_moments_of_another_model_are_refused() -> None:
    lm = tiny_model()
    with pytest.raises(ValueError, match="no C0 for layer 2"):
        check_moments({1: torch.eye(64)}, lm, (1, 2))
    with pytest.raises(ValueError, match=r"\(3, 3\), the model needs \(64, 64\)"):
        check_moments({1: torch.eye(3)}, lm, (1,))
    with pytest.raises(ValueError, match=r"moments\[1\] holds values that are not finite"):
        check_moments({1: torch.full((64, 64), torch.inf)}, lm, (1,))


def test_cache_is_used_mended_and_told_apart_by_model(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COACHHOOK_VIZ_CACHE", str(tmp_path))
    monkeypatch.setattr("coachhook_viz.editing.moments.corpus", lambda: TEXTS)
    calls = []
    lm = tiny_model()

    def watch(*message: object) -> None:
        calls.append(message)

    first = cached_moments(lm, [1, 2], watch)
    assert calls
    calls.clear()
    again = cached_moments(lm, [1], watch)
    assert torch.equal(first[1], again[1])
    assert not calls
    for file in tmp_path.rglob("*layer1*"):
        file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(cached_moments(lm, [1], watch)[1], first[1])
    assert calls
    calls.clear()
    cached_moments(tiny_model(lead="He "), [1], watch)
    assert calls
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.model
def test_shipped_corpus_is_long_enough_for_the_default_model(lm) -> None:
    tokens = sum(len(tokenize(lm, text)) for text in corpus())
    assert tokens >= 20_000
    assert tokens > 10 * lm.d_key
