"""report.html: its parts and its template, for whatever page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmseg_ros.evaluation.metrics import Counts
from llmseg_ros.reports import tables
from llmseg_ros.reports.charts import Chart, histogram, timeline
from llmseg_ros.reports.confusion import (
    Matrix,
    confused_pairs,
    confusion_matrix_cells,
    confusion_table,
)
from llmseg_ros.reports.map_report import Cloud
from llmseg_ros.reports.pictures import Shot
from llmseg_ros.reports.tables import Table

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / 'page'


class Script(NamedTuple):
    """A script of the page, and its hash for the Content-Security-Policy."""

    text: str
    hash: str


class Fact(NamedTuple):
    """A number of the summary."""

    name: str
    text: str
    note: str = ''


class Figure(NamedTuple):
    """Pictures of one image side by side: title and data URI each; the classes seen in them."""

    caption: str
    about: str
    pictures: Sequence[tuple[str, str]]
    legend: Sequence[tuple[str, str]]


class Gallery(NamedTuple):
    """Figures under one heading."""

    title: str
    note: str
    figures: Sequence[Figure]


@dataclass
class Section:
    """A part of the page; whatever it has is shown in this order."""

    id: str
    title: str
    note: str = ''
    cloud: Cloud | None = None
    video: str = ''
    poster: str = ''
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    matrix: Matrix | None = None
    galleries: list[Gallery] = field(default_factory=list)


def confusion_section(names: Sequence[str], confusion: Counts) -> Section:
    """Return the confusion matrix as a table, or where it is too large as a picture."""
    table = confusion_table(names, confusion)
    return Section(
        'confusion',
        'Confusion',
        tables=[t for t in (table, confused_pairs(names, confusion)) if t and t.rows],
        matrix=confusion_matrix_cells(names, confusion),
    )


def time_section(
    totals_ms: Sequence[float], names: Sequence[str], timing: Mapping[str, Any], what: str
) -> Section:
    """Return how long images or frames took."""
    return Section(
        'time',
        'Time',
        charts=[
            histogram(f'{what.capitalize()} by time', totals_ms, milliseconds),
            timeline(f'Time by {what[:-1]}', totals_ms, names, milliseconds),
        ],
        tables=[tables.stage_table(timing)],
    )


def time_fact(timing: Mapping[str, Mapping[str, float]], what: str) -> Fact:
    p50, p95 = (milliseconds(timing['total'][key]) for key in ('p50', 'p95'))
    return Fact(f'time per {what}, median', p50, f'p95 {p95}')


def about_section(run: Mapping[str, Any]) -> Section:
    return Section(
        'about',
        'Configuration and versions',
        tables=[tables.settings_table(run['config']), tables.version_table(run['versions'])],
    )


def milliseconds(value: float) -> str:
    """Write a time."""
    return f'{value:,.1f} ms' if value < 100 else f'{value:,.0f} ms'


def gallery(title: str, shots: Sequence[Shot], names: Sequence[str]) -> Gallery:
    """Show images with their labels and the names of the colours in them."""
    figures = [
        Figure(
            shot.name,
            shot.about,
            shot.pictures(),
            [(names[class_id], tables.colour_of(class_id)) for class_id in shot.ids()],
        )
        for shot in shots
    ]
    with_truth = any(shot.truth is not None for shot in shots)
    note = (
        'In the error pictures wrong pixels are red, plain grey ones do not count.'
        if with_truth
        else ''
    )
    return Gallery(title, note, figures)


def render(
    title: str,
    summary: Mapping[str, Any],
    note: str,
    facts: Sequence[Fact],
    sections: Sequence[Section],
) -> str:
    """Fill in the template; every text is escaped there."""
    names = ['report.js', *(['cloud.js'] if any(section.cloud for section in sections) else [])]
    return (
        templates(FOLDER)
        .get_template('report.html.j2')
        .render(
            title=title,
            encoder=summary['encoder'],
            note=note,
            facts=facts,
            sections=sections,
            scripts=[read_script(FOLDER / name) for name in names],
            style=read_style(FOLDER / 'look.css', FOLDER / 'report.css'),
        )
    )


def templates(folder: Path) -> Environment:
    """Return the templates of a folder; every text is escaped in them, none may be missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def read_style(*paths: Path) -> str:
    """Read style sheets of a page; look.css has what all pages share."""
    return '\n'.join(path.read_text(encoding='utf-8') for path in paths)


def read_script(path: Path) -> Script:
    """Read a script of a page."""
    text = path.read_text(encoding='utf-8')
    return Script(text, hash_of(text))


def hash_of(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows a script or style."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')
    return f'sha256-{digest}'
