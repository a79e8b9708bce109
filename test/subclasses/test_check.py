"""`llmseg subclasses --check`: subclasses that never win on pictures, and where that is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from skimage import data

from llmseg_ros.cli.main import main
from llmseg_ros.evaluation.subclass_check import Contest, SubclassCheck, similarities
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.visualize import palette

LISTS = """
classes:
  cat: {subclasses: [tabby, Egyptian cat, submarine, lighthouse]}
  rocket: {subclasses: [missile]}
  thing: {subclasses: []}
"""
NO_FILTER = ('--no-filter',)  # so that far names stay


@pytest.fixture(scope='module', autouse=True)
def loaded_once(encoders_are_loaded_once: None) -> None:
    pass


class Run(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / 'lists.yaml').write_text(LISTS)
    path = tmp_path / 'config.yaml'
    path.write_text(
        f'subclasses: {{file: {tmp_path / "lists.yaml"}, packs: false}}\nrefine: {{name: none}}\n'
    )
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / 'photos'
    folder.mkdir()
    for name in ('chelsea', 'coffee'):
        Image.fromarray(getattr(data, name)()).save(folder / f'{name}.jpg')
    return folder


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> Run:
        with pytest.raises(SystemExit) as left:
            main(
                [
                    'subclasses',
                    *map(str, arguments),
                    '--config',
                    str(config),
                    '--offline',
                    *NO_FILTER,
                ]
            )
        captured = capsys.readouterr()
        return Run(left.value.code or 0, captured.out, ' '.join(captured.err.split()))

    return call


def test_what_never_wins_is_told_with_its_picture(run, photos: Path, tmp_path: Path) -> None:
    out, numbers = tmp_path / 'sheets', tmp_path / 'check.json'
    done = run('cat', 'rocket', '--check', photos, '--out', out, '--json', numbers)
    assert done.code == 0, done.err
    lines = {line.split()[1]: line for line in done.out.splitlines() if 'jpg' in line}
    assert lines['tabby'].endswith(f'{photos}/chelsea.jpg')
    assert '%' in lines['tabby']
    assert 'never' in lines['submarine']
    assert "lighthouse: never above 'cat' where that was found, in 1 of 2 images" in done.err
    assert 'rocket was found in none of 2 images' in done.err
    cat, rocket = (row['check'] for row in json.loads(numbers.read_text()))
    assert (cat['images'], rocket['images']) == (1, 0)
    won = {one['name']: one['patches_won'] for one in cat['subclasses']}
    assert won['tabby'] > 0
    assert won['submarine'] == won['lighthouse'] == 0
    sheet = np.asarray(Image.open(cat['sheet']))
    assert sheet.shape[1] == 3 * 420
    assert np.all(sheet[-14, 14] == palette(2)[1])  # the legend
    assert [path.name for path in out.iterdir()] == ['cat_subclasses.png']


def test_counts_are_those_of_a_plain_loop(config: Path) -> None:
    segmenter = Segmenter.from_config(config, classes=['cat', 'rocket'])
    check = SubclassCheck(segmenter)
    rgb = data.chelsea()
    check.add(rgb, 'chelsea')
    features = segmenter.encoder.encode_image(rgb)
    labels = segmenter.segment_features(features, rgb).labels
    patches = features.patches_hwd
    height, width = patches.shape[:2]
    names = ['cat', 'tabby', 'Egyptian cat', 'submarine', 'lighthouse']
    rows = segmenter.encoder.encode_text(names)
    won, first, count = [0] * 5, [0] * 5, 0
    for y in range(height):
        for x in range(width):
            if labels[y * labels.shape[0] // height, x * labels.shape[1] // width] != 1:
                continue
            count += 1
            found = [float(patches[y, x] @ row) for row in rows]
            first[found.index(max(found))] += 1
            won = [total + (value > found[0]) for total, value in zip(won, found, strict=True)]
    checked = check.classes[0]
    assert checked.patches == count > 20
    assert [c.won for c in checked.contests] == won[1:]
    assert [c.first for c in checked.contests] == first[1:]
    assert sum(first) == count
    shapes = [maps.shape for maps in similarities(features, segmenter.vocabulary, segmenter)]
    assert shapes == [(5, height, width), (2, height, width)]


def test_the_picture_is_that_of_most_patches_else_the_nearest() -> None:
    from llmseg_ros.evaluation.subclass_check import Sight

    contest = Contest('tabby')
    for image, lead in (('a', -0.3), ('b', -0.1), ('c', -0.2)):
        sight = Sight(image, np.zeros((4, 4, 3), np.uint8), np.ones((2, 2), np.uint16))
        contest.take(np.zeros((2, 2), bool), 0, lead, sight)
    assert (contest.won, contest.sight.image, contest.lead) == (0, 'b', -0.1)
    won = np.array([[True, False], [False, False]])
    contest.take(won, 1, 0.2, Sight('d', np.zeros((4, 4, 3), np.uint8), np.ones((2, 2), np.uint16)))
    assert (contest.won, contest.sight.image) == (1, 'd')
    assert contest.sight.labels_hw.tolist() == [[2, 1], [1, 1]]


@pytest.mark.parametrize(
    ('arguments', 'code', 'sentence'),
    [
        (('cat', '--check', '{empty}'), 1, 'no images in'),
        (('cat', '--check', '{empty}/none.jpg'), 1, 'none of the 1 images could be read'),
        (('thing', '--check', '{photos}'), 1, 'nothing to check: thing has no subclasses'),
        (('rocket', '--check', '{photos}'), 1, 'give images that show them'),
        (('cat', 'a.jpg', '--check', 'b.jpg'), 2, 'a.jpg would be a class name: quote'),
        (('cat', '--out', '{empty}'), 2, '--out is for the pictures of --check'),
        (('cat', '--contrasts', '--check', '{photos}'), 2, '--check is of the subclasses of'),
        (('--prune', '--check', '{photos}'), 2, '--check is of the subclasses of classes'),
    ],
)
def test_wrong_use_ends_in_a_sentence(
    run, photos: Path, tmp_path: Path, arguments, code, sentence
) -> None:
    (tmp_path / 'empty').mkdir()
    filled = [text.format(empty=tmp_path / 'empty', photos=photos) for text in arguments]
    done = run(*filled)
    assert done.code == code
    assert sentence in done.err.replace('│ ', '')


def test_an_image_that_does_not_open_costs_itself(run, photos: Path) -> None:
    (photos / 'broken.png').write_bytes(b'no image')
    done = run('cat', 'thing', '--check', photos)
    assert done.code == 0
    assert 'broken.png: ' in done.err
    assert 'thing has no subclasses to check' in done.err
    assert 'tabby' in done.out
