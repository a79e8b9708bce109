"""report.html of a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmseg_ros.reports import tables
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
        *agreement_facts(summary),
        *replay_facts(summary),
    ]


def agreement_facts(summary: Mapping[str, Any]) -> list[Fact]:
    """Return how well neighbouring views agree, nothing where no two see the same."""
    found = [
        Fact(f'views {apart} apart agree', percent(of['agreement']))
        for apart, of in summary.get('view_agreement', {}).items()
        if of['pairs']
    ]
    return found[:1]


def agreement_section(summary: Mapping[str, Any]) -> Section:
    """Return how well views agree, as they are and with labels out of the map."""
    return Section('agreement', 'Agreement of the views', tables=[agreement_table(summary)])


def agreement_table(summary: Mapping[str, Any]) -> tables.Table:
    """Return a row for each distance between views."""
    in_map = summary.get('view_agreement_in_map', {})
    rows = []
    for apart, of in summary['view_agreement'].items():
        millimetres = of['depth_difference_mm']
        depth = tables.Cell(tables.NONE)
        if millimetres is not None:
            depth = tables.Cell(f'{millimetres:.1f}', millimetres)
        fused = in_map.get(apart, {})
        kinds = ('agreement', 'class_agreement')
        rows.append(
            [
                tables.Cell(apart, int(apart)),
                tables.count_cell(of['pairs']),
                tables.count_cell(of['places']),
                depth,
                *(tables.share_cell(of[kind]) for kind in kinds),
                *(tables.share_cell(fused[kind]) for kind in kinds if in_map),
            ]
        )
    columns = [
        *('frames apart', 'pairs', 'places seen twice', 'depth differs by mm'),
        *('same label', 'same class'),
        *(('same label in the map', 'same class in the map') if in_map else ()),
    ]
    return tables.Table(
        'Labels of places that two views see',
        columns,
        rows,
        'Every fourth pixel of a view is looked for in the other by depth and pose; it is the same '
        'place where depths differ by less than 2 %. "Same class" leaves out what both call '
        'background. This needs no true labels: the higher, the steadier the labels are from '
        'different sides. Labels that are wrong everywhere agree too.',
    )


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
