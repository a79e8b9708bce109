"""`llmseg segment` of real videos with the real model."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image

from llmseg_ros.cli.segment_video import COLUMNS

from ..helpers.commands import llmseg
from ..helpers.videos import grey, turn, write_sound, write_video

TIMES_MS = [0, 33, 67, 100, 1900, 5000]  # a gap longer than any in a report's video


def cat(height: int = 120, width: int = 160) -> np.ndarray:
    return np.asarray(Image.fromarray(skimage.data.chelsea()).resize((width, height)))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A cat, and at the end nothing."""
    return write_video(tmp_path / 'clip.mp4', [*[cat()] * 5, grey(99, 120, 160)], TIMES_MS)


@pytest.mark.usefixtures('encoders_are_loaded_once')
def test_overlay_table_and_label_images(
    tmp_path: Path, clip: Path, fast_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    arguments = [clip, '--classes', 'cat, cup', '--config', fast_config, '--out', out, '--labels']
    assert llmseg('segment', *arguments) == 0
    assert sorted(p.name for p in out.iterdir()) == ['frames.csv', 'labels', 'overlay.mp4']
    assert times_of(out / 'overlay.mp4') == pytest.approx([ms / 1000 for ms in TIMES_MS], abs=2e-3)
    rows = read_table(out / 'frames.csv')
    assert tuple(rows[0]) == COLUMNS
    assert [(row['frame'], row['class']) for row in rows] == [
        (str(frame), name) for frame in range(6) for name in ('cat', 'cup')
    ]
    assert [float(row['seconds']) for row in rows[::2]] == pytest.approx(
        [ms / 1000 for ms in TIMES_MS], abs=1e-3
    )
    assert float(rows[0]['share']) > 0.1
    assert float(rows[0]['score']) > float(rows[1]['score'])
    assert len(list((out / 'labels').iterdir())) == 6
    for row in rows:
        with Image.open(out / 'labels' / f'{row["name"]}.png') as image:
            ids = np.asarray(image)
        assert ids.shape == (120, 160)
        assert (ids == int(row['id'])).mean() == pytest.approx(float(row['share']), abs=1e-6)
    said = capsys.readouterr().out
    assert f'{clip}: cat ' in said
    assert f'6 frames, 5.0 s, are in {out / "overlay.mp4"}' in said


@pytest.mark.usefixtures('encoders_are_loaded_once')
def test_rules_of_a_class_file(
    tmp_path: Path, clip: Path, fast_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, out = tmp_path / 'classes.yaml', tmp_path / 'out'
    arguments = ['segment', clip, '--classes', rules, '--config', fast_config, '--out', out]
    shares = []
    for least in (1, 10_000_000):
        rules.write_text(f'- {{name: cat, minimum_area: {least}}}\n- {{name: cup, also: [mug]}}')
        assert llmseg(*arguments) == 0
        rows = read_table(out / 'frames.csv')
        shares.append([float(row['share']) for row in rows if row['class'] == 'cat'])
    assert shares[0][0] > 0.1
    assert shares[1] == [0] * 6
    capsys.readouterr()
    rules.write_text('- {name: cat, minimum_score: 3}')
    assert llmseg(*arguments) == 1
    assert "rule of 'cat': minimum_score is 3, expected 0 to 1" in capsys.readouterr().err


@pytest.mark.usefixtures('encoders_are_loaded_once')
def test_a_frame_helps_the_next(tmp_path: Path, fast_config: Path) -> None:
    """A class that has just been seen needs less to stay, and not after a gap."""
    config = tmp_path / 'strict.yaml'
    config.write_text(fast_config.read_text() + 'gate: {hysteresis: 0.9, minimum: 0.95}\n')
    cup = np.asarray(Image.fromarray(skimage.data.coffee()).resize((160, 120)))
    mixed = (0.7 * cat() + 0.3 * cup).astype(np.uint8)  # "cat" has a score of 0.87
    shares = []
    for times in ([0, 100, 200], [0, 5000, 10000]):
        clip = write_video(tmp_path / 'clip.mkv', [cat(), mixed, mixed], times, 'ffv1')
        arguments = [clip, '--classes', 'cat, cup', '--config', config, '--out', tmp_path / 'out']
        assert llmseg('segment', *arguments) == 0
        rows = read_table(tmp_path / 'out' / 'frames.csv')
        shares.append([float(row['share']) for row in rows if row['class'] == 'cat'])
    assert all(share > 0 for share in shares[0])
    assert shares[1] == [shares[0][0], 0, 0]


@pytest.mark.usefixtures('encoders_are_loaded_once')
def test_a_phone_video_is_upright(tmp_path: Path, fast_config: Path) -> None:
    sideways = np.rot90(cat())
    clip = turn(write_video(tmp_path / 'clip.mp4', [sideways] * 2, [0, 40]), 0, 1, -1, 0)
    arguments = [clip, '--classes', 'cat', '--config', fast_config, '--out', tmp_path, '--labels']
    assert llmseg('segment', *arguments) == 0
    with Image.open(tmp_path / 'labels' / 'clip_000000.png') as image:
        assert image.size == (160, 120)


@pytest.mark.usefixtures('encoders_are_loaded_once')
def test_what_of_a_cut_off_video_decodes(
    tmp_path: Path, fast_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / 'a.mkv', [cat()] * 40, [100 * i for i in range(40)])
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    arguments = [clip, '--classes', 'cat', '--config', fast_config, '--out', tmp_path / 'out']
    assert llmseg('segment', *arguments) == 0
    frames = len(times_of(tmp_path / 'out' / 'overlay.mp4'))
    assert 10 < frames < 30
    said = capsys.readouterr()
    assert f'{frames} frames' in said.out
    assert 'the file may be cut off' in said.err


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['63'], 'there is no camera /dev/video63'),
        (['gone.mp4'], 'gone.mp4 does not exist'),
        (['text.mp4'], 'is no video that can be read'),
        (['sound.mp4'], 'has no video'),
        (['rtsp://camera/a.mp4'], 'is an address'),
        (['text.mp4', 'b.png'], 'text.mp4 is a video or a camera: give it alone'),
        (['out/overlay.mp4'], 'would be overwritten, choose another --out'),
        (['text.mp4', '--json', 'r.json'], 'the numbers of a video are in frames.csv'),
        (['b.png', '--labels'], 'of images they are always written'),
    ],
)
def test_bad_input_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.mp4').write_text('no video')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'overlay.mp4').write_text('no video')
    write_sound(tmp_path / 'sound.mp4')
    before = sorted(tmp_path.rglob('*'))
    assert llmseg('segment', *arguments, '--classes', 'cat', '--out', 'out') in (1, 2)
    err = ' '.join(capsys.readouterr().err.replace('│', ' ').split())
    assert sentence in err
    assert 'Traceback' not in err
    assert sorted(tmp_path.rglob('*')) == before


def interrupt_after(labels: Path, count: int) -> None:
    """Send Ctrl-C to this process, from a thread, once there are so many label images."""

    def interrupt() -> None:
        while len(list(labels.glob('*_*.png'))) < count:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()


@pytest.mark.usefixtures('encoders_are_loaded_once')
def test_ctrl_c_leaves_a_video_that_plays(
    tmp_path: Path, fast_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / 'a.mp4', [cat()] * 900, [100 * i for i in range(900)])
    out = tmp_path / 'out'
    interrupt_after(out / 'labels', 4)
    arguments = [clip, '--classes', 'cat', '--config', fast_config, '--out', out, '--labels']
    assert llmseg('segment', *arguments) == 130
    frames = len(times_of(out / 'overlay.mp4'))
    assert 4 <= frames < 900
    err = capsys.readouterr().err
    assert f'interrupted at {(frames - 1) / 10:.1f} s of 89.9 s: {frames} frames' in err
    assert len(read_table(out / 'frames.csv')) == frames
    assert len(list((out / 'labels').iterdir())) == frames
    assert sorted(p.name for p in out.iterdir()) == ['frames.csv', 'labels', 'overlay.mp4']
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures('encoders_are_loaded_once')
def test_a_camera_is_recorded_until_ctrl_c(
    tmp_path: Path,
    fast_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FFmpeg's own live device stands for a camera, which machines of CI lack."""
    monkeypatch.setattr(
        'llmseg_ros.frame_sources.cameras.opened_device',
        lambda path: av.open('testsrc=size=160x120:rate=30,realtime', format='lavfi'),
    )
    out = tmp_path / 'out'
    interrupt_after(out / 'labels', 4)
    arguments = ['0', '--classes', 'cat', '--config', fast_config, '--out', out, '--labels']
    assert llmseg('segment', *arguments) == 0
    said = capsys.readouterr()
    assert '0 is recorded until Ctrl-C' in said.err
    frames = len(read_table(out / 'frames.csv'))
    times = times_of(out / 'overlay.mp4')
    assert len(times) == frames >= 4
    assert f'{frames} frames, {times[-1]:.1f} s, are in' in said.out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
