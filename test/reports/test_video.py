"""overlay.mp4: complete or not there."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from llmseg_ros.reports.video import LEGEND_ENTRIES, VideoError, overlay_video
from llmseg_ros.visualize import palette

SECOND = 1_000_000_000
NAMES = ['background', 'cat', 'cup']


def frame(index: int, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((height, width), np.uint16)
    labels[:, : width // 2] = 1 + index % 2
    return np.full((height, width, 3), 120, np.uint8), labels


def read_video(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """Return the RGB frames of a video, and when each is shown, in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format='rgb24') for frame in frames], [f.time for f in frames]


@pytest.mark.parametrize('count', [1, 3, 37])
def test_every_frame_in_its_colours_at_its_time(tmp_path: Path, count: int) -> None:
    path = tmp_path / 'overlay.mp4'
    with overlay_video(path, NAMES) as video:
        for index in range(count):
            video.add(7 * SECOND + index * SECOND // 5, *frame(index))
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    frames, times = read_video(path)
    assert times == pytest.approx([index / 5 for index in range(count)])
    for index, rgb in enumerate(frames):
        expected = (120 + palette(3)[1 + index % 2].astype(int)) / 2
        assert rgb[8:40, 8:24].mean(axis=(0, 1)) == pytest.approx(expected, abs=12)
        assert rgb[8:40, 40:56].mean(axis=(0, 1)) == pytest.approx([120] * 3, abs=12)
    assert frames[0].shape[0] > 48  # the legend


def test_odd_and_changing_sizes(tmp_path: Path) -> None:
    with overlay_video(tmp_path / 'overlay.mp4', NAMES) as video:
        for index, size in enumerate([(33, 47), (33, 47), (66, 94), (20, 21)]):
            video.add(index * SECOND, *frame(index, *size))
    frames, _ = read_video(tmp_path / 'overlay.mp4')
    assert len(frames) == 4
    assert {rgb.shape[1] for rgb in frames} == {46}


def test_large_frames_are_made_small_and_long_class_lists_fit(tmp_path: Path) -> None:
    names = ['background', *(f'class number {index}' * (index % 9) for index in range(1, 171))]
    with overlay_video(tmp_path / 'overlay.mp4', names) as video:
        for index in range(3):
            labels = np.add.outer(np.arange(720) // 90, np.arange(1280) // 80 * 8) + 9 * index
            video.add(index * SECOND, np.zeros((720, 1280, 3), np.uint8), labels.astype(np.uint16))
    frames, _ = read_video(tmp_path / 'overlay.mp4')
    assert len(frames) == 3
    assert frames[0].shape[1] == 640
    assert 360 < frames[0].shape[0] <= 360 + 40 * LEGEND_ENTRIES


@pytest.mark.parametrize(
    ('stamps', 'times'),
    [
        ([0, SECOND // 10, SECOND // 5, 9 * SECOND], [0, 0.1, 0.2, 1.2]),  # a gap is cut short
        ([0, 1, 2], [0, 0.001, 0.002]),  # nanoseconds
        ([SECOND, 0, SECOND // 10], [0, 0.001, 0.101]),  # a clock that was set back
    ],
)
def test_times_of_frames(tmp_path: Path, stamps: list[int], times: list[float]) -> None:
    with overlay_video(tmp_path / 'overlay.mp4', NAMES) as video:
        for index, stamp in enumerate(stamps):
            video.add(stamp, *frame(index))
    assert read_video(tmp_path / 'overlay.mp4')[1] == pytest.approx(times)


def write_three(path: Path) -> None:
    with overlay_video(path, NAMES) as video:
        for index in range(3):
            video.add(index * SECOND, *frame(index))


def no_frames(path: Path) -> None:
    with overlay_video(path, NAMES):
        pass


def into_nowhere(path: Path) -> None:
    path.mkdir()  # where the file should be
    (path / 'file').touch()
    write_three(path)


@pytest.mark.parametrize(('work', 'error'), [(no_frames, VideoError), (into_nowhere, OSError)])
def test_what_can_not_be_written_leaves_nothing(
    tmp_path: Path, work: Callable[[Path], None], error: type[Exception]
) -> None:
    path = tmp_path / 'overlay.mp4'
    with pytest.raises(error):
        work(path)
    assert [p for p in tmp_path.iterdir() if p.is_file()] == []


def write_half(path: Path) -> None:
    with overlay_video(path, NAMES) as video:
        video.add(0, *frame(0))
        raise ValueError('a frame does not decode')


def test_an_error_in_between_leaves_the_old_video(tmp_path: Path) -> None:
    path = tmp_path / 'overlay.mp4'
    write_three(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match='does not decode'):
        write_half(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import sys
from pathlib import Path
import numpy as np
from llmseg_ros.reports.video import VideoError, overlay_video
rng = np.random.default_rng(0)
try:
    with overlay_video(Path(sys.argv[1]), ['background', 'cat']) as video:
        for index in range(12):
            rgb = rng.integers(0, 255, (96, 128, 3)).astype(np.uint8)
            video.add(index * 10**8, rgb, np.zeros((96, 128), np.uint16))
except VideoError as error:
    print(error)
"""


def test_full_disk(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    result = subprocess.run(
        [sys.executable, '-B', '-c', FULL_DISK, tmp_path / 'overlay.mp4'],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'make room on the disk' in result.stdout
    assert list(tmp_path.iterdir()) == []
