"""`llmseg bag from-video`: the bag has the frames of the video, at its times."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmseg_ros.frame_sources import open_source

from ..helpers.commands import llmseg
from ..helpers.videos import corners, grey, turn, write_video

TIMES_MS = [0, 33, 67, 100, 1900]


@pytest.mark.parametrize('options', [[], ['--compressed']])
def test_true_times_and_upright_frames(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / 'a.mp4', [*[corners()] * 4, grey(50)], TIMES_MS)
    turn(clip, 0, 1, -1, 0)
    out = tmp_path / 'bag'
    assert llmseg('bag', 'from-video', clip, '--out', out, *options) == 0
    assert capsys.readouterr().out == f'5 frames in {out}\n'
    with open_source(str(out)) as source:
        frames = list(source)
    assert source.notes == []
    assert [frame.stamp for frame in frames] == pytest.approx([1 + ms / 1000 for ms in TIMES_MS])
    for frame in frames[:4]:
        assert frame.rgb.shape == (64, 48, 3)
        assert frame.rgb[8, 8].astype(int) == pytest.approx((0, 0, 255), abs=12)
        assert frame.rgb[8, -8].astype(int) == pytest.approx((255, 0, 0), abs=12)
    assert frames[4].rgb.mean() == pytest.approx(50, abs=3)
    assert llmseg('bag', 'info', out) == 0
    topic = '/camera/image_raw/compressed' if options else '/camera/image_raw'
    assert f'{topic} ' in capsys.readouterr().out


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_video(tmp_path / 'a.mkv', [corners()] * 40, [100 * i for i in range(40)])
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert llmseg('bag', 'from-video', clip, '--out', tmp_path / 'bag') == 0
    assert 'the file may be cut off' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'sentence'), [('gone.mp4', 'does not exist'), ('text.mp4', 'is no video')]
)
def test_bad_input_leaves_no_bag(
    tmp_path: Path, name: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'text.mp4').write_text('no video')
    assert llmseg('bag', 'from-video', tmp_path / name, '--out', tmp_path / 'bag') == 1
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['text.mp4']


def test_a_bag_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_video(tmp_path / 'a.mp4', [corners()], [0])
    assert llmseg('bag', 'from-video', clip, '--out', tmp_path / 'bag') == 0
    assert llmseg('bag', 'from-video', clip, '--out', tmp_path / 'bag') == 1
    assert 'exists, choose another name' in capsys.readouterr().err
