"""report.html of a bag, or of a folder of bags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmseg_ros.reports import tables
from llmseg_ros.reports.agreement import agreement_facts, agreement_section
from llmseg_ros.reports.charts import histogram, timeline
from llmseg_ros.reports.pictures import ReplayRecorder
from llmseg_ros.reports.report_page import (
    Fact,
    Section,
    about_section,
    confusion_section,
    gallery,
    milliseconds,
    render,
    time_fact,
    time_section,
)
from llmseg_ros.reports.tables import percent

if TYPE_CHECKING:
    from llmseg_ros.bags.scores import ReplayScores

VIDEO = 'overlay.mp4'


def replay_page(summary: Mapping[str, Any], recorded: ReplayRecorder) -> str:
    """Return the page on a bag.

    Args:
        summary: as in report.json.
        recorded: of all its frames.
    """
    names = recorded.names
    frames = [recorded.frame_name(index) for index in range(len(recorded.stamps))]
    labelled = summary['labelled_frames'] > 0
    class_tables = [tables.presence_table(summary)]
    if labelled:
        class_tables.insert(0, tables.class_table(names, 0, recorded.confusion))
    galleries = [
        gallery('Worst frames', recorded.top('worst'), names),
        gallery('Best frames', recorded.top('best'), names),
        gallery('Most changed since the frame before', recorded.top('changed'), names),
        gallery('Evenly spaced', recorded.spread, names),
    ]
    changes = timeline('Pixels whose label changed', recorded.changed, frames, percent)
    sections = [
        Section('classes', 'Classes', tables=class_tables),
        *([confusion_section(names, recorded.confusion)] if labelled else []),
        *([live_section(summary)] if 'live' in summary else []),
        *([agreement_section(summary)] if 'view_agreement' in summary else []),
        Section(
            'frames',
            'Frames',
            video=VIDEO if recorded.video and summary['complete'] else '',
            poster=recorded.spread[0].overlay(),
            tables=rejection_tables(summary),
            charts=[changes] if len(frames) > 1 else [],
            galleries=galleries,
        ),
        time_section(recorded.totals_ms, frames, summary['timing_ms'], 'frames'),
        about_section(summary),
    ]
    facts = replay_facts(summary)
    note = f'Camera topic {summary["image_topic"]}, mode {summary["mode"]}.'
    if not summary['complete']:
        note += ' Interrupted before the end of the bag.'
    note = ' '.join([note, *(f'{sentence}.' for sentence in summary['notes'])])
    return render(f'Replay of {summary["dataset"]}', summary, note, facts, sections)


def folder_page(summary: Mapping[str, Any], scores: ReplayScores) -> str:
    """Return the page on a folder of bags.

    Args:
        summary: as in report.json.
        scores: of all its frames.
    """
    labelled = summary['labelled_frames'] > 0
    problems = [tables.problem_table(summary['problems'])] if summary['problems'] else []
    class_tables = [tables.presence_table(summary)]
    if labelled:
        class_tables.insert(0, tables.class_table(scores.names, 0, scores.confusion))
    times = [histogram('Frames by time', scores.timings_ms['total'], milliseconds)]
    stages = [tables.stage_table(summary['timing_ms'])]
    sections = [
        Section('bags', 'Bags', tables=[tables.bag_table(summary['bags']), *problems]),
        Section('classes', 'Classes', tables=class_tables),
        *([confusion_section(scores.names, scores.confusion)] if labelled else []),
        Section('time', 'Time', charts=times, tables=stages),
        about_section(summary),
    ]
    facts = [Fact('bags', f'{len(summary["bags"]):,}'), *replay_facts(summary)]
    note = f'Camera topic {summary["image_topic"]}.'
    if not summary['complete']:
        note += ' Interrupted before the last bag.'
    if problems:
        note += f' {len(summary["problems"])} more bags can not be used.'
    return render(f'Replay of the bags in {summary["dataset"]}', summary, note, facts, sections)


def replay_facts(summary: Mapping[str, Any]) -> list[Fact]:
    """Return what holds for all frames."""
    facts = [
        Fact('frames', f'{summary["frames"]:,}'),
        Fact('classes', str(len(summary['classes']) - 1)),
    ]
    if summary['rejected_frames']:
        facts.append(Fact('frames rejected', f'{summary["rejected_frames"]:,}'))
    if summary['rejected_labels']:
        facts.append(Fact('label images rejected', f'{summary["rejected_labels"]:,}'))
    if 'live' in summary:
        facts.append(Fact('frames dropped', f'{summary["live"]["frames_dropped"]:,}'))
    if summary['labelled_frames']:
        facts += [
            Fact('frames with true labels', f'{summary["labelled_frames"]:,}'),
            Fact('mIoU', percent(summary['miou'])),
            Fact('pixel accuracy', percent(summary['pixel_accuracy'])),
        ]
    facts.append(Fact('pixels changed from frame to frame', percent(summary['changed_pixels'])))
    facts += agreement_facts(summary)
    facts.append(time_fact(summary['timing_ms'], 'frame'))
    return facts


def live_section(summary: Mapping[str, Any]) -> Section:
    """Return how the node fared."""
    live = summary['live']
    stages = tables.stage_table(live['node']['stages_ms'], 'Time by stage in the node')
    shown = [tables.clock_table(live), stages, tables.count_table(live)]
    return Section('node', 'Node', tables=[table for table in shown if table.rows])


def rejection_tables(summary: Mapping[str, Any]) -> list[tables.Table]:
    """Return which frames and label images could not be used, nothing where all could."""
    return [rejection_table(summary)] if summary['rejections'] else []


def rejection_table(summary: Mapping[str, Any]) -> tables.Table:
    """Return which messages of a bag could not be used, and why."""
    rows = [
        [
            tables.Cell(rejected['topic']),
            *(seconds_cell(rejected[key]) for key in ('recorded', 'stamp')),
            tables.Cell(rejected['reason']),
        ]
        for rejected in summary['rejections']
    ]
    total = summary['rejected_frames'] + summary['rejected_labels']
    note = f'The first {len(rows)} of {total:,}.' if len(rows) < total else ''
    columns = ('topic', 'recorded at, s', 'stamp, s', 'why')
    return tables.Table('Messages that can not be used', columns, rows, note)


def seconds_cell(nanoseconds: int | None) -> tables.Cell:
    """Return a time in seconds, a dash where there is none."""
    return (
        tables.Cell('-')
        if nanoseconds is None
        else tables.Cell(f'{nanoseconds / 1e9:.9f}', nanoseconds)
    )
