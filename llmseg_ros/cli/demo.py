"""`llmseg demo`: the whole way of a frame, on this machine, without a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llmseg_ros.cli.common import ConfigOption, print_table, require_ros, resolve_config


def demo(
    out: Annotated[
        Path, typer.Option(metavar='DIR', help='Where bags, pictures and the summary go.')
    ] = Path('demo_output'),
    config: ConfigOption = None,
    frames: Annotated[int, typer.Option(min=4, help='Camera frames, over four scenes.')] = 48,
    rate: Annotated[float, typer.Option(min=0.1, max=60, help='Camera frames a second.')] = 2.0,
) -> None:
    """Run the node on camera frames panned over four photographs, and show what it finds.

    Needs ROS 2 and the built interfaces, but no camera and no network. The bag of frames is
    played over DDS in one process, the node runs in a second, a third records its answers.

    \b
    Example:
      llmseg demo --out demo_output
    """
    require_ros('the demo')
    from llmseg_ros.demo.report import write_report
    from llmseg_ros.demo.run import prepare_folder, record_demo

    prepare_folder(out)
    recording = record_demo(out, resolve_config(config), frames // 4, rate)
    print_summary(write_report(recording, out))
    print(f'Look at {out / "contact_sheet.png"} and {out / "overlay_cat.png"}; numbers are in')
    print(f'{out / "summary.json"}, bags of the frames and of the answers beside it.')


def print_summary(summary: dict[str, Any]) -> None:
    """Print what each scene was found to be, and how the frames fared."""
    rows = []
    for scene, found in summary['scenes'].items():
        classes = [
            f'{name} in {found["found_in"][name]} ({100 * share:.1f} %)'
            for name, share in found['shares'].items()
        ]
        rows.append((scene, found['frames'], ', '.join(classes[:3]) or 'background only'))
    print_table(('scene', 'frames', 'found in how many (mean share of the pixels of all)'), rows)
    latency = summary['latency_ms']
    print(
        f'{summary["frames_received"]} of {summary["frames_sent"]} frames answered, '
        f'{summary["frames_dropped"]} dropped; latency p50 {latency["p50"]:.0f} ms, '
        f'p95 {latency["p95"]:.0f} ms; class list versions '
        f'{", ".join(map(str, summary["label_versions_seen"]))}; '
        f'{summary["encoder"]} over {summary["rmw"]}'
    )
