"""How a page shows the agreement of views that see one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmseg_ros.reports import tables
from llmseg_ros.reports.report_page import Fact, Section


def agreement_facts(summary: Mapping[str, Any]) -> list[Fact]:
    """Return how well neighbouring views agree, nothing where no two see the same."""
    found = [
        Fact(
            f'views {apart} apart agree',
            tables.percent(of['agreement']),
            f'without background {tables.percent(of["class_agreement"])}',
        )
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
