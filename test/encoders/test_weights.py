"""Weight files: read safely, checked, loaded once."""

from __future__ import annotations

import gc
import hashlib

import pytest
import torch

from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.precision import autocast, pick_precision
from llmseg_ros.encoders.weights import (
    checksum,
    checksum_file,
    find_weights,
    load_once,
    load_strictly,
    read_state_dict,
    weights_folder,
)


def test_the_cache_folder_follows_the_environment(cache, monkeypatch, tmp_path):
    assert weights_folder('open_clip', 'org/ViT--tag') == cache / 'weights/open_clip/org-ViT--tag'
    monkeypatch.delenv('LLMSEG_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert weights_folder('simseg') == tmp_path / 'xdg/llmseg_ros/weights/simseg'


def test_safetensors_are_preferred(tmp_path):
    assert find_weights(tmp_path / 'absent') is None
    for name in ('b.bin', 'a.pt', 'c.safetensors', 'readme.md'):
        (tmp_path / name).touch()
    assert find_weights(tmp_path).name == 'c.safetensors'


def test_checksums(tmp_path):
    path = tmp_path / 'weights.bin'
    path.write_bytes(b'some weights')
    digest = hashlib.sha256(b'some weights').hexdigest()
    assert checksum(path) == digest
    checksum_file(path).write_text(f'{"0" * 64}  weights.bin\n')
    assert checksum(path) == '0' * 64


@pytest.mark.parametrize(
    'content', [[torch.zeros(1)], {'a': 1}, {'state_dict': {'a': 'b'}}, torch.zeros(1)]
)
def test_what_is_no_table_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / 'x.pt')
    with pytest.raises(EncoderUnavailable, match='not a table of named tensors'):
        read_state_dict(tmp_path / 'x.pt')


@pytest.mark.parametrize('name', ['x.pt', 'x.safetensors', 'x.bin'])
@pytest.mark.parametrize('content', [b'', b'\0' * 64, b'<html>not found</html>'])
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EncoderUnavailable, match=name):
        read_state_dict(tmp_path / name)


def test_a_misfit_names_a_few_keys(tmp_path):
    layer = torch.nn.Linear(2, 2)
    state = {f'extra{i}': torch.zeros(1) for i in range(5)} | {'weight': torch.zeros(3, 2)}
    with pytest.raises(EncoderUnavailable) as caught:
        load_strictly(layer, state, tmp_path / 'x.pt')
    message = str(caught.value)
    assert 'is missing bias' in message
    assert 'extra0, extra1, extra2 and 2 more' in message
    assert 'weight is (3, 2) instead of (2, 2)' in message


def test_a_model_is_loaded_once_while_it_is_held():
    loads = []

    def load():
        loads.append(1)
        return torch.nn.Linear(1, 1)

    first = load_once('key', load)
    assert load_once('key', load) is first
    assert load_once('other', load) is not first
    del first
    gc.collect()
    load_once('key', load)
    assert len(loads) == 3


@pytest.mark.parametrize(
    ('name', 'device', 'dtype'),
    [
        ('auto', 'cpu', torch.float32),
        ('auto', 'mps', torch.float16),
        ('bf16', 'cpu', torch.bfloat16),
        ('fp16', 'cuda', torch.float16),
        ('fp32', 'cuda', torch.float32),
    ],
)
def test_precision(name, device, dtype):
    assert pick_precision(name, torch.device(device)) == dtype


def test_products_run_in_the_precision():
    cpu, x = torch.device('cpu'), torch.ones(2, 2)
    with autocast(cpu, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(cpu, torch.float32):
        assert (x @ x).dtype == torch.float32
