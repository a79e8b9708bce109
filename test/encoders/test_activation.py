"""Checkpoint files of the other activation: refused where it is known, told of where it isn't."""

import json

import pytest

from llmseg_ros.encoders.activation import check_activation
from llmseg_ros.encoders.base import EncoderUnavailable

open_clip = pytest.importorskip('open_clip')
OPENAI_DIGEST = '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f'
LAION_DIGEST = '55e67d44' + 56 * '0'  # of laion400m_e32, as its address begins it
UNKNOWN = 64 * 'e'


@pytest.mark.parametrize(
    ('digest', 'keys', 'trained', 'other'),
    [
        (OPENAI_DIGEST, (), 'ViT-B-16-quickgelu', 'ViT-B-16'),
        (LAION_DIGEST, (), 'ViT-B-16', 'ViT-B-16-quickgelu'),
        (
            UNKNOWN,
            ('input_resolution', 'context_length', 'vocab_size', 'proj'),
            'ViT-B-16-quickgelu',
            'ViT-B-16',
        ),
    ],
)
def test_what_is_known_decides(tmp_path, caplog, digest, keys, trained, other):
    check_activation(trained, tmp_path / 'x.pt', digest, keys)
    with pytest.raises(EncoderUnavailable, match=f'use the model {trained} instead of {other}'):
        check_activation(other, tmp_path / 'x.pt', digest, keys)
    assert not caplog.text


@pytest.mark.parametrize('quick', [True, False])
def test_a_snapshot_of_the_hub_says_it(tmp_path, quick):
    model = {'quick_gelu': True} if quick else {}
    (tmp_path / 'open_clip_config.json').write_text(json.dumps({'model_cfg': model}))
    right, wrong = ('ViT-B-16-quickgelu', 'ViT-B-16')[:: 1 if quick else -1]
    check_activation(right, tmp_path / 'open_clip_model.safetensors', UNKNOWN, ())
    with pytest.raises(EncoderUnavailable, match=f'use the model {right}'):
        check_activation(wrong, tmp_path / 'open_clip_model.safetensors', UNKNOWN, ())


@pytest.mark.parametrize('beside', [None, '{', '[]', '{"model_cfg": 3}'])
def test_what_is_not_known_is_told_of(tmp_path, caplog, beside):
    if beside is not None:
        (tmp_path / 'open_clip_config.json').write_text(beside)
    check_activation('ViT-B-16', tmp_path / 'mine.pt', UNKNOWN, ('visual.proj',))
    for part in ('mine.pt', 'GELU, for the model ViT-B-16,', 'for ViT-B-16-quickgelu'):
        assert part in caplog.text


def test_a_model_without_a_twin_needs_no_word(tmp_path, caplog):
    check_activation('ViT-bigG-14-CLIPA', tmp_path / 'x.pt', UNKNOWN, ())
    assert not caplog.text
