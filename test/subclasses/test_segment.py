"""`llmseg segment` asks the language model before the first image, and does without an answer."""

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from llmseg_ros.cli.main import main

NOBODY = 'http://127.0.0.1:9/v1'


@pytest.fixture
def segment(fast_config, tmp_path, capsys):
    """Segment a photograph of a cat under a name that only the language model understands."""
    Image.fromarray(np.ascontiguousarray(skimage.data.chelsea())).save(tmp_path / 'cat.png')

    def run(url):
        command = ['segment', tmp_path / 'cat.png', '--classes', 'zub', '--out', tmp_path / 'out']
        command += ['--config', fast_config(url), '--json', tmp_path / 'j']
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in command])
        said = capsys.readouterr().err
        assert left.value.code == 0, said
        (image,) = json.loads((tmp_path / 'j').read_text())['images']
        return {found['name']: found['area'] for found in image['classes']}, said

    return run


def test_answers_come_before_the_first_image(segment, server):
    server.behave = lambda _: server.answer(
        json.dumps({'subclasses': ['tabby cat', 'tiger cat', 'Egyptian cat']})
    )
    first, _ = segment(server.url)
    assert server.asked == ['zub']
    assert first['zub'] > 0.3 * 300 * 451
    again, _ = segment(NOBODY)  # out of the store
    assert again == first


def test_a_server_that_is_down_keeps_nobody_from_segmenting(segment):
    found, said = segment(NOBODY)
    assert found == {}
    assert '127.0.0.1:9 can not be reached' in said
    assert said.splitlines()[-1].endswith('; going on with the subclasses that are known')
