"""Real video files, whole, turned, uneven, damaged, and others that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmseg_ros.frame_sources import SourceError, TimedFrame, open_source

from ..helpers.videos import corners, grey, turn, write_sound, write_video

UNEVEN_MS = [0, 40, 80, 500, 540, 2000]


def read_all(path: Path) -> tuple[list[TimedFrame], list[str]]:
    with open_source(str(path)) as source:
        frames = list(source)
    return frames, source.notes


@pytest.mark.parametrize(
    ('name', 'codec'), [('a.mp4', 'libx264'), ('a.webm', 'libvpx-vp9'), ('a:1.mkv', 'mpeg4')]
)
def test_frames_at_their_true_times_in_their_colours(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    write_video(path, [grey(20 + 40 * i) for i in range(6)], UNEVEN_MS, codec)
    frames, notes = read_all(path)
    assert [frame.stamp for frame in frames] == pytest.approx([ms / 1000 for ms in UNEVEN_MS])
    for index, frame in enumerate(frames):
        assert (frame.number, frame.name) == (index, f'{path.stem}_{index:06d}')
        assert frame.rgb.shape == (48, 64, 3)
        assert frame.rgb.mean(axis=(0, 1)) == pytest.approx([20 + 40 * index] * 3, abs=4)
    assert notes == []


def test_what_is_announced(tmp_path: Path) -> None:
    times = [100 * i for i in range(20)]
    with open_source(str(write_video(tmp_path / 'a.mp4', [grey(9)] * 20, times))) as source:
        assert (source.kind, source.count) == ('video', 20)
        assert source.rate == pytest.approx(10, abs=0.6)
        assert source.duration == pytest.approx(2, abs=0.11)


def test_times_begin_with_the_first_frame(tmp_path: Path) -> None:
    frames, _ = read_all(write_video(tmp_path / 'a.ts', [grey(9)] * 3, [7000, 7040, 7500]))
    assert [frame.stamp for frame in frames] == pytest.approx([0, 0.04, 0.5])


def test_a_stream_without_times(tmp_path: Path) -> None:
    frames, notes = read_all(write_video(tmp_path / 'a.h264', [grey(9)] * 4, [0, 40, 80, 120]))
    assert [frame.stamp for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert notes == []


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ('matrix', 'size', 'upper_left', 'upper_right'),
    [
        ((1, 0, 0, 1), (48, 64), RED, GREEN),
        ((0, 1, -1, 0), (64, 48), BLUE, RED),  # a phone upright: a quarter turn clockwise
        ((0, -1, 1, 0), (64, 48), GREEN, BLUE),
        ((-1, 0, 0, -1), (48, 64), BLUE, BLUE),
        ((-1, 0, 0, 1), (48, 64), GREEN, RED),  # mirrored
    ],
)
def test_display_matrix(
    tmp_path: Path,
    matrix: tuple[int, int, int, int],
    size: tuple[int, int],
    upper_left: tuple[int, int, int],
    upper_right: tuple[int, int, int],
) -> None:
    path = turn(write_video(tmp_path / 'a.mp4', [corners()] * 2, [0, 40]), *matrix)
    for frame in read_all(path)[0]:
        assert frame.rgb.shape[:2] == size
        assert frame.rgb[8, 8].astype(int) == pytest.approx(upper_left, abs=12)
        assert frame.rgb[8, -8].astype(int) == pytest.approx(upper_right, abs=12)


def noise(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (96, 128, 3)).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize(('name', 'options'), [('a.mkv', {}), ('a.mp4', {'movflags': 'faststart'})])
def test_a_video_that_is_cut_off_is_used_as_far_as_it_goes(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    path = tmp_path / name
    write_video(path, noise(40), [100 * i for i in range(40)], **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, notes = read_all(path)
    assert 10 < len(frames) < 30
    assert [frame.stamp for frame in frames] == pytest.approx([i / 10 for i in range(len(frames))])
    assert notes[-1].endswith('the file may be cut off')
    assert ' of 4.' in notes[-1] or ' of 3.9 s' in notes[-1]


def test_damage_in_the_middle_costs_itself(tmp_path: Path) -> None:
    path = write_video(tmp_path / 'a.mkv', noise(40), [100 * i for i in range(40)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20000] = bytes(20000)
    path.write_bytes(data)
    frames, notes = read_all(path)
    assert 20 < len(frames) <= 40
    stamps = [frame.stamp for frame in frames]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] == pytest.approx(3.9)
    assert len(notes) == 1
    assert 'the video is damaged in' in notes[0]


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('a.mp4', b'', 'is empty'),
        ('a.mp4', b'no video' * 99, 'is no video that can be read'),
        ('a.txt', b'FFmpeg shows text as a film\n' * 99, 'is no video that can be read'),
        ('a.m3u8', b'#EXTM3U\n#EXTINF:1,\n/etc/passwd\n', 'is no video that can be read'),
    ],
)
def test_files_that_are_no_videos(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=f'{name} {sentence}'):
        open_source(str(tmp_path / name))


def test_a_video_without_its_index(tmp_path: Path) -> None:
    path = write_video(tmp_path / 'a.mp4', noise(10), [100 * i for i in range(10)])
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(SourceError, match='cut off before its index was written'):
        open_source(str(path))


def test_sound_alone(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='has no video: sound or data alone'):
        open_source(str(write_sound(tmp_path / 'a.mp4')))


def test_nothing_decodes(tmp_path: Path) -> None:
    path = write_video(tmp_path / 'a.mp4', noise(3), [0, 100, 200], movflags='faststart')
    data = path.read_bytes()
    start = data.index(b'mdat') + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    with pytest.raises(SourceError, match='no frame that decodes'):
        open_source(str(path))
