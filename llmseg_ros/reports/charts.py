"""Bar charts of the report page: what is drawn, not how."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

MAX_BARS = 240  # of a timeline: longer ones are drawn in groups
MAX_BINS = 30
TOP_SHARE = 99  # percentile from which on values share the last bin of a histogram


class Bar(NamedTuple):
    """A bar of a chart.

    Attributes:
        x, width: in shares of the chart's width.
        height: in shares of its height.
        peak: height of the highest value where the bar stands for several.
        title: what it shows, in words.
    """

    x: float
    width: float
    height: float
    peak: float
    title: str


class Chart(NamedTuple):
    """Bars, and what is written beside the axes, from the origin on."""

    title: str
    bars: Sequence[Bar]
    x_ticks: Sequence[str]
    y_ticks: Sequence[str]


def histogram(title: str, values: Sequence[float], write: Callable[[float], str]) -> Chart:
    """Count values in bins of one width; the slowest percent is in the last bin.

    Args:
        title: of the chart.
        values: at least one.
        write: value to text.
    """
    low, high = min(values), float(np.percentile(values, TOP_SHARE))
    count = min(MAX_BINS, max(5, math.isqrt(len(values))))
    counts, edges = np.histogram(np.minimum(values, high), bins=count, range=(low, high))
    edges[-1] = max(values) if high > low else edges[-1]
    top = int(counts.max())
    bars = [
        Bar(
            index / count,
            1 / count,
            number / top,
            0.0,
            f'{write(edges[index])} to {write(edges[index + 1])}: {number}',
        )
        for index, number in enumerate(counts.tolist())
    ]
    return Chart(title, bars, (write(edges[0]), write(edges[-1])), ('0', str(top)))


def timeline(
    title: str, values: Sequence[float], names: Sequence[str], write: Callable[[float], str]
) -> Chart:
    """Draw values in their order; of a group that shares a bar, the median and the highest.

    Args:
        title: of the chart.
        values: at least one, NaN where there is none.
        names: of what each value belongs to.
        write: value to text.
    """
    shown = np.nan_to_num(np.asarray(values, np.float64))
    top = float(shown.max()) or 1.0
    edges = np.linspace(0, len(shown), min(MAX_BARS, len(shown)) + 1).astype(int)
    bars = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        group = shown[start:end]
        highest = start + int(group.argmax())
        median = float(np.median(group))
        text = f'{names[highest]}: {write(shown[highest])}'
        if len(group) > 1:
            text = f'{start + 1} to {end}: median {write(median)}, highest {text}'
        x, width = start / len(shown), (end - start) / len(shown)
        bars.append(Bar(x, width, median / top, shown[highest] / top, text))
    return Chart(title, bars, ('1', str(len(shown))), ('0', write(top)))
