"""`llmseg segment`, on real files with the real model."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import skimage.data
from PIL import Image

from llmseg_ros.cli.common import CommandError
from llmseg_ros.cli.main import main
from llmseg_ros.cli.segment import accepted_names
from llmseg_ros.cli.segment_images import (
    find_images,
    output_stems,
    read_image,
    refuse_overwriting,
)
from llmseg_ros.visualize import palette


class Finished(NamedTuple):
    """A run of `llmseg segment` over a folder of good and bad files."""

    folder: Path
    code: int
    out: str
    err: str
    images: dict[str, dict[str, Any]]


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Segment two cats and a coffee cup among files that are no images."""
    folder = tmp_path_factory.mktemp('segment')
    for name, photograph in (('a/x.png', 'chelsea'), ('b/x.png', 'coffee'), ('b/x.jpg', 'chelsea')):
        (folder / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(getattr(skimage.data, photograph)()).save(folder / 'in' / name)
    (folder / 'in' / 'a' / 'text.jpg').write_text('not an image')
    whole = (folder / 'in' / 'a' / 'x.png').read_bytes()
    (folder / 'in' / 'a' / 'cut.png').write_bytes(whole[: len(whole) // 2])
    (folder / 'in' / 'notes.txt').write_text('no image either')
    arguments = [folder / 'in', folder / 'in' / 'gone.png', '--classes', 'cat, cup, airplane, Cat']
    arguments += ['--out', folder / 'out', '--json', folder / 'result.json']
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as leaving:
        main(['segment', *map(str, arguments)])
    data = json.loads((folder / 'result.json').read_text(encoding='utf-8'))
    images = {str(Path(i['image']).relative_to(folder / 'in')): i for i in data['images']}
    assert isinstance(leaving.value.code, int)
    return Finished(folder, leaving.value.code, out.getvalue(), err.getvalue(), images)


def test_bad_files_fail_alone(finished: Finished) -> None:
    assert finished.code == 1
    assert {name for name, image in finished.images.items() if 'error' in image} == {
        'a/text.jpg',
        'a/cut.png',
        'gone.png',
    }
    assert '3 of 6 images could not be segmented' in finished.err.splitlines()[-1]
    assert 'text.jpg: this is not an image' in finished.err
    assert 'gone.png: the image does not open: No such file' in finished.err
    assert 'Traceback' not in finished.err


def test_json_lists_every_class_and_says_what_its_keys_mean(finished: Finished) -> None:
    data = json.loads((finished.folder / 'result.json').read_text(encoding='utf-8'))
    listed = [(item['id'], item['name'], item['source']) for item in data['classes']]
    assert listed == [(1, 'cat', 'pack'), (2, 'cup', 'pack'), (3, 'airplane', 'pack')]
    assert 'tabby' in ' '.join(data['classes'][0]['subclasses'])
    described = set(finished.images['a/x.png']['classes'][0]) - {'name'}
    assert set(data['keys']) == described


def test_the_cat_is_a_cat(finished: Finished) -> None:
    image = finished.images['a/x.png']
    cat = image['classes'][0]
    assert (cat['id'], cat['name']) == (1, 'cat')
    assert 0 < cat['score'] <= 1
    with Image.open(image['labels']) as labels:
        assert labels.mode == 'P'
        assert labels.getpalette()[:6] == palette(2).ravel().tolist()
        ids = np.asarray(labels)
    assert ids.shape == (image['height'], image['width']) == (300, 451)
    assert ids[150, 225] == 1
    assert cat['area'] == np.count_nonzero(ids == 1)
    rows, columns = np.nonzero(ids == 1)
    left, top = columns.min(), rows.min()
    assert cat['box'] == [left, top, columns.max() - left + 1, rows.max() - top + 1]
    assert np.mean(ids == 3) < 0.02  # no airplane
    assert {'encode', 'fuse', 'gate', 'refine'} <= set(image['timings_ms'])


def test_the_cup_is_a_cup(finished: Finished) -> None:
    assert finished.images['b/x.png']['classes'][0]['name'] == 'cup'


def test_outputs_do_not_collide(finished: Finished) -> None:
    written = sorted(p for p in (finished.folder / 'out').rglob('*') if p.is_file())
    assert [str(path.relative_to(finished.folder / 'out')) for path in written] == [
        'a/x_labels.png',
        'a/x_overlay.png',
        'b/x.png_labels.png',
        'b/x.png_overlay.png',
        'b/x_labels.png',
        'b/x_overlay.png',
    ]


def test_the_overlay_has_a_legend(finished: Finished) -> None:
    with Image.open(finished.images['a/x.png']['overlay']) as overlay:
        assert overlay.width == 451
        assert overlay.height > 300


def test_what_is_said(finished: Finished) -> None:
    assert len(finished.out.splitlines()) == 3
    assert 'x.png: cat ' in finished.out
    assert "class name 'Cat' repeats 'cat': merged" in finished.err
    assert finished.err.count('\r') == 0  # no progress bars outside a terminal


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['.'], ['b/c.PNG', 'x.jpg', 'y.jpeg']),
        (['*.jp*g'], ['x.jpg', 'y.jpeg']),
        (['**/*'], ['b/c.PNG', 'x.jpg', 'y.jpeg']),
        (['x.jpg', './x.jpg', 'b/../x.jpg'], ['x.jpg']),
        (['notes.txt'], ['notes.txt']),
        (['[1].jpg'], ['[1].jpg']),
        (['gone.jpg', 'x.jpg'], ['gone.jpg', 'x.jpg']),
        (['out/made.png'], ['out/made.png']),
    ],
)
def test_find_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path, 'x.jpg', 'y.jpeg', 'notes.txt', 'b/c.PNG', '.hidden/d.png', 'out/made.png')
    if '[1].jpg' in arguments:
        make_files(tmp_path, '[1].jpg')
    found = find_images(arguments, Path('out'))
    if arguments == ['**/*']:
        found = [path for path in found if path.parts[0] != 'out']
    assert [path.as_posix() for path in found] == expected


@pytest.mark.parametrize('argument', ['empty', '*.gif', 'out'])
def test_nothing_to_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path, 'x.jpg', 'out/made.png', 'empty/notes.txt')
    with pytest.raises(CommandError, match='no images'):
        find_images([argument], Path('out'))


@pytest.mark.parametrize(
    ('paths', 'stems'),
    [
        (['/p/x.jpg'], ['x']),
        (['/p/a/x.jpg', '/p/b/x.jpg'], ['a/x', 'b/x']),
        (['/p/x.jpg', '/p/x.png'], ['x', 'x.png']),
        (['/p/x.png', '/p/x.jpg', '/p/x.jpg.png'], ['x', 'x.jpg', 'x.jpg.png']),
        (['/p/x.a.png', '/p/x.a', '/p/x.a.jpg'], ['x.a', 'x', 'x.a.jpg']),
        (['/p/x.png', '/p/x'], ['x', 'x_2']),
    ],
)
def test_output_stems(paths: list[str], stems: list[str]) -> None:
    found = output_stems([Path(path) for path in paths])
    assert [stem.as_posix() for stem in found] == stems


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    make_files(tmp_path, 'x.png', 'x_labels.png')
    with pytest.raises(CommandError, match=r'x_labels\.png would be overwritten'):
        refuse_overwriting([tmp_path / 'x.png', tmp_path / 'x_labels.png'], [tmp_path / 'x'])


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'P', '1', 'CMYK', 'I;16'])
def test_read_image_gives_rgb(tmp_path: Path, mode: str) -> None:
    suffix = 'jpg' if mode == 'CMYK' else 'png'
    Image.new(mode, (5, 3)).save(tmp_path / f'image.{suffix}')
    rgb = read_image(tmp_path / f'image.{suffix}')
    assert rgb.shape == (3, 5, 3)
    assert rgb.dtype == np.uint8


def test_read_image_turns_it_upright(tmp_path: Path) -> None:
    image = Image.new('RGB', (5, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    image.save(tmp_path / 'turned.png', exif=exif)
    assert read_image(tmp_path / 'turned.png').shape == (5, 3, 3)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new('1', (100, 100)).save(tmp_path / 'bomb.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(ValueError, match='too many pixels'):
        read_image(tmp_path / 'bomb.png')


@pytest.mark.parametrize(
    ('given', 'sentence'),
    [
        ('https://example.org/cat.jpg', 'is an address: save the image as a file'),
        ('rtsp://camera/stream', 'is an address'),
        ('-', 'not read from standard input'),
        ('office.mcap', 'is a bag: `llmseg replay office.mcap'),
        ('*.jpg', 'no images in *.jpg: .bmp, .gif,'),
    ],
)
def test_what_is_no_image_says_what_to_do(
    given: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError) as refusal:
        find_images([given], tmp_path / 'out')
    assert sentence in str(refusal.value)


def test_names_in_capitals_and_gifs_are_found_and_hidden_files_are_not(tmp_path: Path) -> None:
    for name in ('a.JPG', 'b.gif', '._a.JPG', '.c.png', 'd.txt', '.hidden/e.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([str(tmp_path)], tmp_path / 'out')
    assert [path.name for path in found] == ['a.JPG', 'b.gif']


def test_class_names_that_are_all_refused_end_it(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match='none of the class names can be used'):
        accepted_names(['x' * 100, '\x1b'])


def test_rules_of_a_class_file(
    llmseg: Any, fast_config: Path, photographs: Path, tmp_path: Path
) -> None:
    rules, result = tmp_path / 'classes.yaml', tmp_path / 'result.json'
    picture = photographs / 'images/cat.png'
    command = ('segment', picture, '--classes', rules, '--config', fast_config, '--out', tmp_path)
    rules.write_text('- {name: cat, minimum_area: -3}')
    refused = llmseg(*command)
    assert refused.code == 1
    assert "rule of 'cat': minimum_area is -3, expected a number of pixels" in refused.err
    areas = []
    for least in (1, 10_000_000):
        rules.write_text(f'- {{name: cat, minimum_area: {least}}}\n- {{name: sofa, also: [couch]}}')
        done = llmseg(*command, '--json', result)
        assert done.code == 0, done.err
        (image,) = json.loads(result.read_text())['images']
        areas.append({one['name']: one['area'] for one in image['classes']}.get('cat', 0))
    assert areas[0] > 0
    assert areas[1] == 0
