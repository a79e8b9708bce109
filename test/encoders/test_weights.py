"""Weight files: read safely, checked, loaded once."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.precision import autocast, pick_precision
from llmseg_ros.encoders.weights import (
    checksum,
    checksum_file,
    find_weights,
    given_weights,
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
    os.utime(checksum_file(path), (1, 1))  # the file was replaced since
    assert checksum(path) == digest
    checksum_file(path).write_text('')
    assert checksum(path) == digest


@pytest.mark.parametrize('wrong', [float('nan'), float('inf'), -float('inf')])
def test_weights_that_are_no_numbers_are_refused(wrong):
    layer = torch.nn.Linear(300, 300)
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    state['weight'][7, 9] = wrong
    with pytest.raises(EncoderUnavailable, match='damaged, it has NaN or infinity in weight'):
        load_strictly(layer, state, Path('x.pt'))


@pytest.mark.parametrize(
    'other',
    [
        torch.zeros(2, 2, dtype=torch.int8),
        torch.zeros(2, 2, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
    ],
)
def test_weights_of_another_kind_are_refused(other):
    layer = torch.nn.Linear(2, 2)
    state = {**layer.state_dict(), 'weight': other}
    with pytest.raises(EncoderUnavailable, match='another kind of numbers in weight'):
        load_strictly(layer, state, Path('x.pt'))


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


@pytest.mark.parametrize('wrapping', ['state_dict', 'model_state_dict', 'model'])
def test_what_a_trainer_writes_is_read(tmp_path, wrapping):
    """As SimSeg's does: a version of torch, numpy's numbers, the optimizer and the scaler."""
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    meta = {
        'torch': torch.__version__,
        'time': 'Thu',
        'numbers': [np.float64(0.1), np.float32(2), np.int64(3), np.bool_(True)],
    }
    checkpoint = {
        wrapping: {f'module.{key}': value for key, value in layer.state_dict().items()},
        'optimizer': optimizer.state_dict(),
        'scaler': torch.amp.GradScaler('cpu').state_dict(),
        'meta': meta,
    }
    torch.save(checkpoint, tmp_path / 'x.pth')
    found = read_state_dict(tmp_path / 'x.pth')
    assert list(found) == ['weight', 'bias']
    assert torch.equal(found['weight'], layer.weight)


def test_code_beside_harmless_objects_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / 'sprung'), 'w'))

    checkpoint = {'state_dict': {}, 'meta': [torch.__version__, np.float64(1), Trap()]}
    torch.save(checkpoint, tmp_path / 'x.pth')
    with pytest.raises(EncoderUnavailable, match='code or objects'):
        read_state_dict(tmp_path / 'x.pth')
    assert not (tmp_path / 'sprung').exists()


def test_a_snapshot_and_a_blob_of_the_hub_are_read(tmp_path):
    """In its cache a file lies under its checksum, and a snapshot links to it."""
    from safetensors.torch import save_file

    blob = tmp_path / 'blobs' / ('a' * 64)
    snapshot = tmp_path / 'snapshots' / '1234'
    for folder in (blob.parent, snapshot):
        folder.mkdir(parents=True)
    save_file({'a': torch.ones(2)}, blob)
    with pytest.raises(
        EncoderUnavailable, match=r'has no checkpoint: expected a file of \.safetens'
    ):
        given_weights(str(snapshot))
    (snapshot / 'open_clip_model.safetensors').symlink_to(blob)
    for given in (snapshot, blob):
        found = read_state_dict(given_weights(str(given)))
        assert found['a'].tolist() == [1.0, 1.0]


def test_of_several_the_wanted_one_is_first(tmp_path):
    for name in ('simseg.vit-b.pth', 'simseg.vit-s.pth'):
        (tmp_path / name).touch()
    assert find_weights(tmp_path).name == 'simseg.vit-b.pth'
    assert find_weights(tmp_path, first='vit-s').name == 'simseg.vit-s.pth'


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


def small_clip() -> torch.nn.Module:
    """Make a random CLIP model of a few thousand weights, whose text tower has an attn_mask."""
    open_clip = pytest.importorskip('open_clip')
    torch.manual_seed(0)
    vision = {'image_size': 32, 'layers': 2, 'width': 64, 'patch_size': 16, 'head_width': 32}
    text = {'context_length': 8, 'vocab_size': 100, 'width': 32, 'heads': 2, 'layers': 2}
    return open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text).eval()


def save_archive(module: torch.nn.Module, path: Path, half: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.save(torch.jit.script(module.half() if half else module), path)


@pytest.mark.parametrize('half', [False, True])
def test_a_torchscript_archive_is_read(tmp_path, half):
    model = small_clip()
    save_archive(model, tmp_path / 'x.pt', half)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        state = read_state_dict(tmp_path / 'x.pt')
    assert all(tensor.dtype == (torch.half if half else torch.float) for tensor in state.values())
    other = small_clip()
    for parameter in other.parameters():
        parameter.data.zero_()
    load_strictly(other, state, tmp_path / 'x.pt')
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor.float()), name


class Touch:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize('hidden', ['in the archive', 'in the checkpoint'])
def test_no_code_of_a_file_is_run(tmp_path, hidden):
    path, touched = tmp_path / 'x.pt', tmp_path / 'touched'
    if hidden == 'in the archive':
        save_archive(torch.nn.Linear(2, 2), tmp_path / 'good.pt')
        with zipfile.ZipFile(tmp_path / 'good.pt') as good, zipfile.ZipFile(path, 'w') as bad:
            for name in good.namelist():
                spoilt = name.endswith('/data.pkl')
                bad.writestr(name, pickle.dumps(Touch(touched)) if spoilt else good.read(name))
    else:
        torch.save({'weight': Touch(touched)}, path)
    with pytest.raises(EncoderUnavailable, match=r'TorchScript archive|holds code or objects'):
        read_state_dict(path)
    assert not touched.exists()


def test_an_archive_that_reaches_beyond_its_tensors_is_refused(tmp_path):
    save_archive(torch.nn.Linear(2, 2), tmp_path / 'good.pt')
    path = tmp_path / 'x.pt'
    with zipfile.ZipFile(tmp_path / 'good.pt') as good, zipfile.ZipFile(path, 'w') as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name)[:4] if '/data/' in name else good.read(name))
    with pytest.raises(EncoderUnavailable, match='TorchScript archive'):
        read_state_dict(path)


def test_an_archive_without_weights_says_how_to_make_some(tmp_path):
    save_archive(torch.nn.ReLU(), tmp_path / 'x.pt')
    with pytest.raises(EncoderUnavailable) as refusal:
        read_state_dict(tmp_path / 'x.pt')
    message = str(refusal.value)
    assert 'is a TorchScript archive without weights' in message
    assert 'torch.jit.load(FILE).state_dict()' in message
    assert 'weights_only' not in message


@pytest.mark.parametrize(
    'prefix', ['', 'module.', '_orig_mod.', '_orig_mod.module.', 'module._orig_mod.']
)
@pytest.mark.parametrize('wrapping', [None, 'state_dict', 'model_state_dict', 'model'])
def test_prefixes_and_wrappings_are_dropped(tmp_path, prefix, wrapping):
    state = {f'{prefix}visual.weight': torch.ones(2), f'{prefix}module_norm.bias': torch.ones(1)}
    torch.save({'epoch': 3, wrapping: state} if wrapping else state, tmp_path / 'x.pt')
    assert set(read_state_dict(tmp_path / 'x.pt')) == {'visual.weight', 'module_norm.bias'}


def test_a_part_that_was_compiled_loses_its_prefix(tmp_path):
    torch.save({'visual._orig_mod.conv1.weight': torch.ones(2)}, tmp_path / 'x.pt')
    assert set(read_state_dict(tmp_path / 'x.pt')) == {'visual.conv1.weight'}


@pytest.mark.parametrize('number', [torch.tensor(224), 224])
def test_the_numbers_of_openai_are_no_reason_to_refuse(tmp_path, number):
    torch.save({'a': torch.ones(1), 'input_resolution': number}, tmp_path / 'x.pt')
    assert read_state_dict(tmp_path / 'x.pt')['input_resolution'] == 224


def test_torch_gives_no_advice_that_runs_code(tmp_path, monkeypatch):
    def load(*_, **__):
        raise RuntimeError('Cannot use ``weights_only=True`` with this. Set it to ``False``.')

    (tmp_path / 'x.pt').touch()
    monkeypatch.setattr(torch, 'load', load)
    with pytest.raises(EncoderUnavailable) as refusal:
        read_state_dict(tmp_path / 'x.pt')
    assert str(refusal.value).endswith('x.pt is damaged or no checkpoint')
