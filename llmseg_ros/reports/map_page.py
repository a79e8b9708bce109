"""report.html of a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmseg_ros.reports import tables
from llmseg_ros.reports.agreement import agreement_section
from llmseg_ros.reports.charts import timeline
from llmseg_ros.reports.map_report import Cloud
from llmseg_ros.reports.pictures import ReplayRecorder
from llmseg_ros.reports.replay_page import replay_facts
from llmseg_ros.reports.report_page import (
    Fact,
    Figure,
    Gallery,
    Section,
    about_section,
    gallery,
    render,
    time_section,
)
from llmseg_ros.reports.tables import percent


def map_page(
    summary: Mapping[str, Any],
    classes: Sequence[Mapping[str, Any]],
    cloud: Cloud,
    pictures: Sequence[tuple[str, str]],
    recorded: ReplayRecorder,
) -> str:
    """Return the page on a map.

    Args:
        summary: as in report.json.
        classes: as in classes.json.
        cloud: to turn in the browser.
        pictures: of the cloud, title and data URI each.
        recorded: of all its frames.
    """
    frames = [recorded.frame_name(index) for index in range(len(recorded.stamps))]
    legend = [(c.name, c.colour) for c in cloud.classes]
    shown = Figure('', '', pictures, legend)
    changes = timeline('Pixels whose label changed', recorded.changed, frames, percent)
    class_tables = [voxel_table(classes), tables.presence_table(summary)]
    names = recorded.names
    sections = [
        Section('cloud', 'Map', cloud=cloud, galleries=[Gallery('Pictures', '', [shown])]),
        Section('classes', 'Classes', tables=class_tables),
        agreement_section(summary),
        Section(
            'frames',
            'Frames',
            charts=[changes] if len(frames) > 1 else [],
            galleries=[
                gallery(
                    'Most changed since the frame before', recorded.top('changed'), recorded.names
                ),
                gallery('Evenly spaced', recorded.spread, names),
            ],
        ),
        time_section(recorded.totals_ms, frames, summary['timing_ms'], 'frames'),
        about_section(summary),
    ]
    return render(
        f'Map of {summary["dataset"]}', summary, note_on(summary), facts(summary), sections
    )


def note_on(summary: Mapping[str, Any]) -> str:
    """Say what the map is in, and what is missing."""
    note = f'Camera {summary["image_topic"]}, map in the frame {summary["frame"]}.'
    if summary['left_out']:
        note += f' Left out: {summary["left_out"]}.'
    if not summary['complete']:
        note += ' Interrupted before the last frame.'
    if forgotten := summary['map']['forgotten_voxels']:
        note += f' {forgotten:,} voxels were forgotten at the limit of the map.'
    return note


def facts(summary: Mapping[str, Any]) -> list[Fact]:
    """Return what holds for the whole map."""
    of = summary['map']
    size = f'voxels of {100 * of["voxel_m"]:g} cm'
    return [
        Fact(size, f'{of["voxels"]:,}'),
        Fact('mean probability of a label', percent(of['mean_probability'])),
        *replay_facts(summary),
    ]


def voxel_table(classes: Sequence[Mapping[str, Any]]) -> tables.Table:
    """Return how much of the map each class has."""
    total = sum(of['voxels'] for of in classes) or 1
    rows = [
        [
            tables.class_cell(of['id'], of['name']),
            tables.count_cell(of['voxels']),
            tables.share_cell(of['voxels'] / total, bar=True),
        ]
        for of in classes
    ]
    columns = ('class', 'voxels', 'share of the map')
    return tables.Table('Voxels by class', columns, rows, kind='classes')
