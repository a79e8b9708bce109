"""Tables of the report page: cells with the value they are sorted by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from llmseg_ros.evaluation.metrics import Counts, class_iou, ratio
from llmseg_ros.visualize import palette

NONE = '\N{EN DASH}'
MINUS = '\N{MINUS SIGN}'
RATES = {
    'in_hz': 'frames in per second',
    'out_hz': 'frames out per second',
    'jitter_ms': 'jitter in ms',
}


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what is read.
        value: what it is sorted by; None: by the text, or last where the text is NONE.
        bar: length of a bar behind it, in [0, 1].
        heat: how strongly it is coloured, in [0, 1].
        right: whether the heat is that of pixels that are right.
        colour: of a class, '#rrggbb'.
        title: more in words.
        link: what the text leads to.
    """

    text: str
    value: float | None = None
    bar: float | None = None
    heat: float = 0.0
    right: bool = False
    colour: str = ''
    title: str = ''
    link: str = ''


class Table(NamedTuple):
    """A table that can be sorted by each column; `kind` is a class of the style sheet."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ''
    kind: str = ''

    def are_numbers(self) -> list[bool]:
        """Return which columns have numbers that stand below each other."""
        columns = zip(*self.rows, strict=True)
        return [any(c.value is not None and c.bar is None for c in column) for column in columns]


def percent(share: float | None) -> str:
    """Write a share in percent."""
    return NONE if share is None or math.isnan(share) else f'{100 * share:.1f} %'


def colour_of(class_id: int) -> str:
    """Return the colour of a class as '#rrggbb'."""
    return '#' + bytes(palette(class_id + 1)[-1].tolist()).hex()


def share_cell(share: float | None, bar: bool = False) -> Cell:
    """Return a cell with a share in percent."""
    if share is None or math.isnan(share):
        return Cell(NONE)
    return Cell(percent(share), share, share if bar else None)


def count_cell(count: int) -> Cell:
    """Return a cell with a whole number."""
    return Cell(f'{count:,}', count)


def difference_cell(value: float | None, base: float | None) -> Cell:
    """Return a cell with the difference of two shares in percentage points."""
    if value is None or base is None:
        return Cell(NONE)
    points = round(100 * (value - base), 2)
    sign = MINUS if points < 0 else '+' if points > 0 else ''
    return Cell(f'{sign}{abs(points):.2f}', points)


def class_cell(class_id: int, name: str) -> Cell:
    """Return a cell with the name of a class and its colour."""
    return Cell(name, colour=colour_of(class_id))


def class_table(
    names: Sequence[str],
    first: int,
    confusion: Counts,
    presence_ap: Mapping[str, float | None] | None = None,
) -> Table:
    """Return what holds for each class from id `first` on, with presence AP where it is known."""
    hits = np.diagonal(confusion)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    iou_n, recall_n, precision_n = class_iou(confusion), ratio(hits, truth), ratio(hits, predicted)
    total = confusion.sum()
    rows = [
        [
            class_cell(i, names[i]),
            share_cell(iou_n[i], bar=True),
            share_cell(recall_n[i]),
            share_cell(precision_n[i]),
            *([share_cell(presence_ap.get(names[i]))] if presence_ap else []),
            share_cell(float(ratio(truth[i], total))),
            share_cell(float(ratio(predicted[i], total))),
        ]
        for i in range(first, len(names))
    ]
    return Table(
        'IoU by class',
        (
            *('class', 'IoU', 'recall', 'precision'),
            *(['presence AP'] if presence_ap else []),
            *('share of truth', 'share of prediction'),
        ),
        rows,
        'Recall is the share of the true pixels that are found, precision the share of the '
        + 'predicted ones that are right. '
        + ('Presence AP is the average precision of the images by score. ' if presence_ap else '')
        + f'{NONE} means that a class does not occur.',
        'classes',
    )


def presence_table(summary: Mapping[str, Any]) -> Table:
    """Return how much of a bag each class covers, and how steadily."""
    rows = [
        [
            class_cell(class_id, name),
            share_cell(share, bar=True),
            count_cell(summary['presence_changes'][name]),
        ]
        for class_id, (name, share) in enumerate(summary['class_share'].items())
    ]
    columns = ('class', 'share of the pixels', 'appeared or vanished')
    return Table('Share of the pixels by class', columns, rows, kind='classes')


def bag_table(bags: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return what holds for each bag of a folder; a bag's name leads to its report."""
    labelled = any(of['labelled_frames'] for of in bags.values())
    rejected = any(of['rejected_frames'] for of in bags.values())
    rows = []
    for bag, of in bags.items():
        total = of['timing_ms']['total']
        rows.append(
            [
                Cell(bag, link=f'./{quote(bag)}/report.html'),
                count_cell(of['frames']),
                *([count_cell(of['rejected_frames'])] if rejected else []),
                *([share_cell(of['miou'], bar=True)] if labelled else []),
                share_cell(of['changed_pixels']),
                count_cell(sum(of['presence_changes'].values())),
                *(Cell(f'{total[key]:.0f}', total[key]) for key in ('p50', 'p95')),
            ]
        )
    columns = ('bag', 'frames', *(['rejected'] if rejected else []))
    columns += (*(['mIoU'] if labelled else []), 'pixels changed')
    return Table('Bags', (*columns, 'appeared or vanished', 'ms p50', 'ms p95'), rows)


def problem_table(problems: Mapping[str, str]) -> Table:
    """Return why bags can't be used."""
    rows = [[Cell(bag), Cell(problem)] for bag, problem in problems.items()]
    return Table('Bags that can not be used', ('bag', 'why'), rows)


def boxes_table(summary: Mapping[str, Any]) -> Table:
    """Return how each class's masks lie in its boxes."""
    rows = [
        [
            class_cell(class_id, name),
            count_cell(summary['class_images'][name]),
            share_cell(summary['class_pointing_accuracy'][name], bar=True),
            share_cell(summary['class_mask_in_box'][name], bar=True),
        ]
        for class_id, name in enumerate(summary['classes'], start=1)
    ]
    columns = ('class', 'images with boxes', 'pointing accuracy', 'mask in box')
    note = (
        "Pointing accuracy is the share of these images where the mask's surest pixel lies in a "
        'box, mask in box the share of the pixels of all masks that lie in boxes.'
    )
    return Table('Masks and boxes by class', columns, rows, note, 'classes')


def stage_table(timing: Mapping[str, Mapping[str, float]], caption: str = 'Time by stage') -> Table:
    """Return median and 95th percentile of every stage."""
    rows = [
        [Cell(stage), *(Cell(f'{of[key]:.1f}', of[key]) for key in ('p50', 'p95'))]
        for stage, of in timing.items()
    ]
    return Table(caption, ('stage', 'p50 in ms', 'p95 in ms'), rows)


def count_table(live: Mapping[str, Any]) -> Table:
    """Return how many frames went into the node and what became of them, and rates."""
    counts = {key: live[key] for key in ('frames_in', 'frames_out', 'frames_dropped')}
    counts |= {f'{name} by the node': number for name, number in live['node']['frames'].items()}
    rows = [[Cell(in_words(name)), Cell(f'{value:,}', value)] for name, value in counts.items()]
    for key, name in RATES.items():
        if (value := live['wall_clock'].get(key)) is not None:
            rows.append([Cell(name), Cell(f'{value:,.2f}', value)])
    return Table('Frames and rates', ('count', 'number'), rows)


def clock_table(live: Mapping[str, Any]) -> Table:
    """Return latency and the like, with the clock that they are in."""
    rows = [
        [
            Cell(in_words(name)),
            Cell(in_words(clock)),
            *(Cell(f'{times[key]:,.1f}', times[key]) for key in ('p50', 'p95', 'max')),
        ]
        for clock in ('wall_clock', 'bag_clock')
        for name, times in live.get(clock, {}).items()
        if isinstance(times, Mapping)
    ]
    columns = ('time in ms', 'by', 'p50', 'p95', 'max')
    note = 'Latency is from sending a frame to having its labels, age from its stamp.'
    return Table('Latency', columns, rows, note)


def in_words(key: str) -> str:
    """Write a key of the report for people."""
    return key.removesuffix('_ms').replace('_', ' ')


def run_table(runs: Sequence[Mapping[str, Any]], configured: str) -> Table:
    """Return the runs of an ablation, and how far each is from the best and the configured one."""
    axes = [setting.partition('=')[0] for setting in runs[0]['name'].split()]
    best = max(runs, key=miou_of)
    base = next(run for run in runs if run['name'] == configured)
    rows = []
    for run in runs:
        values = [setting.partition('=')[2] for setting in run['name'].split()]
        marks = [m for m, of in (('best', best), ('configured', base)) if of is run]
        total = run['timing_ms']['total']
        rows.append(
            [
                *map(Cell, values),
                Cell(', '.join(marks)),
                share_cell(run['miou'], bar=True),
                difference_cell(run['miou'], best['miou']),
                difference_cell(run['miou'], base['miou']),
                share_cell(run['boundary_iou']),
                share_cell(run['pixel_accuracy']),
                share_cell(run['mean_accuracy']),
                share_cell(run['frequency_weighted_iou']),
                share_cell(run['presence_ap']),
                *(Cell(f'{total[key]:.0f}', total[key]) for key in ('p50', 'p95')),
            ]
        )
    differences = ('to best', 'to configured')
    others = ('boundary IoU', 'pixel accuracy', 'mean accuracy', 'weighted IoU', 'presence AP')
    columns = (*axes, 'mark', 'mIoU', *differences, *others, 'ms p50', 'ms p95')
    return Table('Runs', columns, rows, 'Differences are in percent points.')


def miou_of(run: Mapping[str, Any]) -> float:
    """Return the mIoU of a run, below all others where it is undefined."""
    return -1.0 if run['miou'] is None else float(run['miou'])


def class_by_run_table(runs: Sequence[Mapping[str, Any]], first: int) -> Table:
    """Return the IoU of every class under every setting."""
    rows = [
        [class_cell(class_id, name), *(share_cell(run['class_iou'][name]) for run in runs)]
        for class_id, name in enumerate(runs[0]['class_iou'], start=first)
    ]
    names = [' '.join(s.partition('=')[2] for s in run['name'].split()) for run in runs]
    return Table('IoU by class and settings', ('class', *names), rows)


def settings_table(config: Mapping[str, Any]) -> Table:
    """Return the configuration, a setting a row."""
    rows = [[Cell(name), Cell(text)] for name, text in flattened(config)]
    return Table('Configuration', ('setting', 'value'), rows)


def flattened(config: Mapping[str, Any], prefix: str = '') -> list[tuple[str, str]]:
    """Return nested settings as (section.name, value)."""
    found = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            found += flattened(value, f'{prefix}{name}.')
        else:
            listed = isinstance(value, (list, tuple))
            text = ', '.join(map(str, value)) if listed else str(value)
            found.append((f'{prefix}{name}', text))
    return found


def version_table(versions: Mapping[str, str]) -> Table:
    """Return the versions that the numbers depend on."""
    rows = [[Cell(name), Cell(version)] for name, version in versions.items()]
    return Table('Versions', ('package', 'version'), rows)
