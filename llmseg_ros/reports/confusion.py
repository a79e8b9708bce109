"""What was taken for what: the confusion of classes as a table, pairs or a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.evaluation.metrics import Counts, ratio
from llmseg_ros.reports.tables import (
    Cell,
    Table,
    class_cell,
    count_cell,
    percent,
    share_cell,
)

LARGE_MATRIX = 40  # classes from which on a confusion matrix is drawn without numbers
MOST_CONFUSED = 20  # pairs
SMALLEST_SHARE = 0.005  # of a class's pixels: smaller cells of a large matrix aren't drawn


class Matrix(NamedTuple):
    """A confusion matrix too large for numbers.

    Attributes:
        size: rows and columns.
        cells: column, row, heat, whether it is on the diagonal, what it shows in words.
    """

    size: int
    cells: Sequence[tuple[int, int, float, bool, str]]


def confusion_table(names: Sequence[str], confusion: Counts) -> Table | None:
    """Return the confusion matrix with rows for the truth in percent of it, None if too large."""
    if len(names) > LARGE_MATRIX:
        return None
    share_nn = row_shares(confusion)
    rows = [
        [class_cell(i, names[i])]
        + [
            Cell(
                f'{100 * share_nn[i, j]:.0f}' if share_nn[i, j] >= SMALLEST_SHARE else '',
                share_nn[i, j],
                heat=share_nn[i, j],
                right=i == j,
                title=confusion_in_words(names, confusion, share_nn, i, j),
            )
            for j in range(len(names))
        ]
        for i in np.flatnonzero(confusion.sum(axis=1)).tolist()
    ]
    return Table(
        'Confusion matrix',
        ('truth \N{RIGHTWARDS ARROW} prediction', *names),
        rows,
        'Percent of the true pixels of the row that are labelled as the column.',
        'matrix',
    )


def confusion_matrix_cells(names: Sequence[str], confusion: Counts) -> Matrix | None:
    """Return the cells of a large confusion matrix to draw, None where a table can show it."""
    if len(names) <= LARGE_MATRIX:
        return None
    share_nn = row_shares(confusion)
    cells = [
        (
            j,
            i,
            round(math.sqrt(share_nn[i, j]), 3),  # small shares are to be seen too
            i == j,
            confusion_in_words(names, confusion, share_nn, i, j),
        )
        for i, j in np.argwhere(share_nn >= SMALLEST_SHARE).tolist()
    ]
    return Matrix(len(names), cells)


def confused_pairs(names: Sequence[str], confusion: Counts) -> Table:
    """Return the pairs of classes with the most wrong pixels."""
    wrong = confusion - np.diag(np.diagonal(confusion))
    share_nn = row_shares(confusion)
    order = np.argsort(-wrong, axis=None, kind='stable')[:MOST_CONFUSED]
    pairs = [divmod(int(index), len(names)) for index in order if wrong.flat[index]]
    rows = [
        [
            class_cell(i, names[i]),
            class_cell(j, names[j]),
            count_cell(int(wrong[i, j])),
            share_cell(share_nn[i, j], bar=True),
        ]
        for i, j in pairs
    ]
    columns = ('truth', 'labelled as', 'pixels', 'share of the true class')
    return Table('Most confused', columns, rows, kind='pairs')


def row_shares(confusion: Counts) -> NDArray[np.float64]:
    """Return every cell of a confusion matrix as a share of its row, 0 in empty rows."""
    return np.nan_to_num(ratio(confusion, confusion.sum(axis=1, keepdims=True)))


def confusion_in_words(
    names: Sequence[str], confusion: Counts, share_nn: NDArray[np.float64], i: int, j: int
) -> str:
    return (
        f'truth {names[i]}, labelled {names[j]}: {percent(share_nn[i, j])}, '
        f'{confusion[i, j]:,} pixels'
    )
