"""What one edit does to another's key, in cells and in words, for the Interference panel.

SIDES        what is put beside each other
key          what shades and names mean
clustered    an order that puts facts side by side that act on each other
matrix       cells of one side; row_names and column_names, their names
by_layer     cells of one pair
ranked       how well the prediction ranks the pairs
headline     what one pair does
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from coachhook_viz.facts import Fact
from coachhook_viz.measure.interference import rank_correlation
from coachhook_viz.panels.grid import Cell
from coachhook_viz.panels.words import brief, count, named, short
from coachhook_viz.panels.zoom import Zoom, means

SIDES = {
    "predicted": "Predicted before editing, from keys and order",
    "actual": "Actual: effect on the other's key",
}
WIDE, ROOM = 6, 12  # facts up to which numbers have room to spare, or stand in the cells at all
_SMALLEST = 1e-3  # drawn as none, as in `figures.interference`
_LEAST = 0.01  # told as a number
_KEY = Markup(
    "<p class='cv-key'>"
    "<span>0.001 <span class='cv-ramp'></span> 1: as strong as its own edit</span>"
    "{}<span>row: the fact acted on</span><span>column: the edit, by number</span>"
    "<span><span class='cv-swatch cv-none'></span> the fact itself</span></p>"
)


def clustered(table: pd.DataFrame) -> list[int]:
    """Ids in an order that puts facts side by side that act on each other.

    From the strongest pair on, each time the fact that goes best with the one before.

    Parameters
    ----------
    table : DataFrame
        Facts × edits, as `Session.interference` has them for one column of it.
    """
    ids = [int(str(fact_id)) for fact_id in table.index]
    values = table.reindex(columns=ids).to_numpy()
    acts = values + values.T
    for place in range(len(ids)):
        acts[place, place] = 0.0
    order = [int(acts.max(axis=1).argmax())]
    rest = [place for place in range(len(ids)) if place != order[0]]
    while rest:
        last = acts[order[-1]]
        order.append(max(rest, key=lambda place: float(last[place])))
        rest.remove(order[-1])
    return [ids[place] for place in order]


def matrix(
    side: str, table: pd.DataFrame, ids: list[int], facts: Mapping[int, Fact], zoom: Zoom
) -> list[list[Cell]]:
    """Facts × edits, in the order of `ids`, shaded by order of magnitude; or means of blocks."""
    acts = "would act" if side == "predicted" else "acts"
    values = table.reindex(index=ids, columns=ids).to_numpy()
    if zoom.binned:
        return _blocks(acts, values, ids, facts, zoom)
    rows = [part.start for part in zoom.rows]
    columns = [part.start for part in zoom.columns]
    return [
        [
            Cell(detail=f"{named(facts[ids[i]])}: its own edit, which is 1", kind="none")
            if i == j
            else Cell(
                _told(float(values[i, j]), len(rows)),
                f"{named(facts[ids[j]])} {acts} on {named(facts[ids[i]])}: {values[i, j]:.3g}",
                shade=_shade(float(values[i, j])),
            )
            for j in columns
        ]
        for i in rows
    ]


def _blocks(
    acts: str,
    values: NDArray[np.float64],
    ids: list[int],
    facts: Mapping[int, Fact],
    zoom: Zoom,
) -> list[list[Cell]]:
    """One cell a block: the mean of its pairs, and which pair is strongest."""
    pairs = values.astype(float)
    np.fill_diagonal(pairs, np.nan)
    averages, counts = means(pairs, zoom.rows, zoom.columns)
    cells: list[list[Cell]] = []
    for rows, line, numbers in zip(zoom.rows, averages.tolist(), counts.tolist(), strict=True):
        cells.append([])
        for columns, mean, number in zip(zoom.columns, line, numbers, strict=True):
            if not number:
                cells[-1].append(Cell(detail="a fact itself", kind="none"))
                continue
            part = pairs[rows.start : rows.stop, columns.start : columns.stop]
            i, j = divmod(int(np.nanargmax(part)), part.shape[1])
            one, other = (facts[ids[k]] for k in (columns[j], rows[i]))
            detail = (
                f"{count(number, 'pair')}: mean {mean:.3g}. Strongest: {named(one)} {acts} on"
                f" {named(other)}, {part[i, j]:.3g}; click to open"
            )
            cells[-1].append(Cell(detail=detail, shade=_shade(mean)))
    return cells


def row_names(ids: list[int], facts: Mapping[int, Fact], zoom: Zoom) -> list[str]:
    """A fact by its subject and number; of a block the first fact, and how many more."""
    names = []
    for part in zoom.rows:
        first = ids[part.start]
        subject, more = brief(facts[first].subject), len(part) - 1
        names.append(f"{first} +{more} · {subject}" if more else f"{subject} · {first}")
    return names


def column_names(ids: list[int], zoom: Zoom) -> list[str]:
    """An edit by its number; of a block the first one's."""
    return [str(ids[part.start]) for part in zoom.columns]


def key(zoom: Zoom) -> Markup:
    """What shades and names mean in what is shown."""
    if zoom.binned:
        said = "each cell: the mean over {} × {} pairs; click to open it".format(*zoom.lengths)
        return _KEY.format(Markup("<span>{}</span>").format(said))
    facts = len(zoom.rows)
    return _KEY.format(Markup("<span>no number: below 0.01</span>") if facts <= ROOM else "")


def by_layer(pair: pd.DataFrame) -> list[list[Cell]]:
    """One row a layer, one column a side."""
    return [
        [Cell(f"{value:.2f}", f"{value:.4g}", shade=_shade(value)) for value in line]
        for line in pair[list(SIDES)].to_numpy().tolist()
    ]


def ranked(frame: pd.DataFrame) -> str:
    """How well the prediction ranks the pairs, in words; nothing where there are too few."""
    rho = rank_correlation(frame)["rho"].iloc[-1] if frame["fact"].nunique() > 2 else math.nan
    if pd.isna(rho):
        return ""
    well = "well" if rho >= 0.7 else "in part" if rho >= 0.4 else "poorly"
    return f"The prediction ranks the pairs {well}: Spearman's ρ is {rho:.2f}, at best 1."


def headline(fact: Fact, by: Fact, pair: pd.DataFrame) -> Markup:
    """How strongly the edit `by` acts on `fact`, as the mean over the layers."""
    return Markup(
        "On the key of <b>{}</b>, the edit <b>{}</b> acts {:.2g} times as strongly as its own edit;"
        " {:.2g} was predicted."
    ).format(named(fact), named(by), pair["actual"].mean(), pair["predicted"].mean())


def _shade(value: float) -> float:
    return 1 + math.log10(max(value, _SMALLEST)) / -math.log10(_SMALLEST)


def _told(value: float, facts: int) -> str:
    if facts > ROOM or value < _LEAST:
        return ""
    if facts <= WIDE:
        return f"{value:.2f}"
    return short(value) if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"
