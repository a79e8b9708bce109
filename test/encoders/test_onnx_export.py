"""Exports of image towers: made once, whole, and again where damaged."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time

import pytest
import torch
from torch import nn

from llmseg_ros.config import EncoderConfig
from llmseg_ros.encoders import onnx_export
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.onnx_export import Tower, export_folder, exported
from llmseg_ros.encoders.runtime import OnnxRuntime, as_tensor, pick_runtime

pytest.importorskip('onnxruntime')
pytest.importorskip('onnx')

CPU = torch.device('cpu')
ON_CPU = OnnxRuntime(CPU, ('CPUExecutionProvider',), half=False, required=True)


def tiny_tower(weights='abc', mode=(), code=(), log=None):
    """Return the tower of a layer that doubles, which notes in a file when it is made."""

    def make():
        if log is not None:
            with open(log, 'a') as file:
                file.write('made\n')
            time.sleep(0.3)  # for another process to come in between
        layer = nn.Linear(4, 4, bias=False)
        layer.weight = nn.Parameter(2 * torch.eye(4))
        return nn.Sequential(layer, AsTuple()).requires_grad_(False), (torch.zeros(1, 4),)

    return Tower('tiny/one', weights, mode, {'x': (0,)}, {'y': (0,)}, code, (), make)


class AsTuple(nn.Module):
    def forward(self, x):
        return (x,)


def modified(path):
    return path.stat().st_ino


def test_an_export_is_made_once_and_serves_any_length():
    path = exported(tiny_tower())
    made = modified(path)
    assert exported(tiny_tower()) == path
    assert modified(path) == made
    tower = ON_CPU.open(tiny_tower())
    for length in (1, 3):
        x = torch.randn(length, 4)
        torch.testing.assert_close(tower(x)[0], 2 * x)
    assert tower.runtime.startswith('onnxruntime ')
    assert tower.runtime.endswith(', cpu')


def test_whatever_the_result_depends_on_is_in_the_name(tmp_path, monkeypatch):
    code = tmp_path / 'code.py'
    code.write_text('x = 1')
    towers = [
        tiny_tower(),
        tiny_tower(weights='abd'),
        tiny_tower(mode=('naclip',)),
        tiny_tower(code=(str(code),)),
    ]
    paths = {exported(tower) for tower in towers} | {exported(tiny_tower(), half=True)}
    code.write_text('x = 2')
    paths.add(exported(tiny_tower(code=(str(code),))))
    monkeypatch.setattr(onnx_export.metadata, 'version', lambda package: '99')
    paths.add(exported(tiny_tower()))
    assert len(paths) == 7


@pytest.mark.parametrize('damage', ['cut off', 'changed', 'unsigned', 'nonsense'])
def test_a_damaged_export_is_made_again(damage):
    path = exported(tiny_tower())
    content = path.read_bytes()
    if damage == 'cut off':
        path.write_bytes(content[:-10])
    elif damage == 'changed':
        path.write_bytes(content[:-10] + b'0123456789')
    elif damage == 'unsigned':
        onnx_export.checksum_file(path).unlink()
    else:  # and signed all the same, as by a version that writes what this one can't read
        path.write_bytes(b'nonsense')
        digest = onnx_export.compute_checksum(path)
        onnx_export.checksum_file(path).write_text(f'{digest}  {path.name}\n')
    x = torch.randn(2, 4)
    torch.testing.assert_close(ON_CPU.open(tiny_tower())(x)[0], 2 * x)
    assert path.read_bytes() == content


def test_nothing_is_left_of_an_export_that_fails(monkeypatch):
    def cut_off(module, example, tower, path):
        path.write_bytes(b'half of it')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(onnx_export, 'trace', cut_off)
    with pytest.raises(OSError, match='No space'):
        exported(tiny_tower())
    assert [path.suffix for path in export_folder().iterdir()] == ['.lock']


def test_two_processes_export_once(tmp_path):
    log = tmp_path / 'log'
    context = multiprocessing.get_context('fork')
    processes = [
        context.Process(target=exported, args=(tiny_tower(log=log),), daemon=True) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text() == 'made\n'


def test_the_exports_used_last_are_kept(monkeypatch):
    monkeypatch.setattr(onnx_export, 'KEPT', 2)
    paths = [exported(tiny_tower(weights)) for weights in 'ab']
    for path, seconds in zip(paths, (1, 2), strict=True):
        os.utime(path, (seconds, seconds))
    onnx_export.engine_folder(paths[1]).mkdir()
    exported(tiny_tower('a'))  # used again, so that b is the oldest
    paths.append(exported(tiny_tower('c')))
    left = {path.name for path in export_folder().iterdir()}
    for path in (paths[0], paths[2]):
        assert {path.name, f'{path.name}.sha256', f'{path.stem}.lock'} <= left
    assert not [name for name in left if name.startswith(paths[1].stem)]


def test_what_computes_in_half_precision_takes_and_gives_single():
    import onnx

    tower = dataclasses.replace(ON_CPU, half=True).open(tiny_tower())
    x = torch.randn(2, 4)
    (y,) = tower(x)
    torch.testing.assert_close(y, 2 * x, atol=1e-2, rtol=0)
    weights = onnx.load(exported(tiny_tower(), half=True)).graph.initializer
    assert [tensor.data_type for tensor in weights] == [onnx.TensorProto.FLOAT16]


def test_what_older_versions_give_is_read_too(monkeypatch):
    from onnxruntime import OrtValue

    x = torch.randn(2, 4)
    value = OrtValue.ortvalue_from_numpy(x.numpy())
    assert torch.equal(as_tensor(value), x)
    monkeypatch.delattr(OrtValue, '__dlpack__')
    assert torch.equal(as_tensor(value), x)


def test_auto_takes_torch_where_the_folder_can_not_be_written(cache, caplog):
    cache.write_text('a file where the folder should be')
    assert dataclasses.replace(ON_CPU, required=False).open(tiny_tower()) is None
    assert 'tiny/one runs in torch' in caplog.text
    with pytest.raises(EncoderUnavailable, match=r'can not run tiny/one.*encoder.runtime: torch'):
        ON_CPU.open(tiny_tower())


def test_a_folder_that_is_only_read_serves(monkeypatch):
    path = exported(tiny_tower())

    def refuse(*arguments, **options):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('pathlib.Path.touch', refuse)
    monkeypatch.setattr('pathlib.Path.mkdir', refuse)
    assert exported(tiny_tower()) == path


def test_a_tower_too_large_for_a_file_runs_in_torch(monkeypatch, caplog):
    monkeypatch.setattr(onnx_export, 'MOST_BYTES', 10)
    assert dataclasses.replace(ON_CPU, required=False).open(tiny_tower()) is None
    assert 'no room for its 0.0 GB of weights' in caplog.text


def test_auto_is_onnxruntime_on_the_cpu_and_torch_where_it_was_not_measured_faster(monkeypatch):
    picked = pick_runtime(EncoderConfig(), CPU)
    assert picked.providers == ('CPUExecutionProvider',)
    assert (picked.half, picked.required) == (False, False)
    assert pick_runtime(EncoderConfig(runtime='torch'), CPU) is None
    assert pick_runtime(EncoderConfig(), torch.device('cuda')) is None
    assert pick_runtime(EncoderConfig(precision='bf16'), CPU) is None
    assert pick_runtime(EncoderConfig(), CPU, compiled=True) is None
    monkeypatch.setattr('llmseg_ros.encoders.runtime.PACKAGES', ('no_such_package',))
    assert pick_runtime(EncoderConfig(), CPU) is None


@pytest.mark.parametrize(
    ('settings', 'compiled', 'reason'),
    [
        ({'precision': 'bf16'}, False, 'fp32 or fp16, not in bf16'),
        ({}, True, 'compile: false'),
        ({'providers': ('tensorflow', 'cpu')}, False, "names 'tensorflow', this onnxruntime has"),
    ],
)
def test_what_onnxruntime_can_not_do_is_refused(settings, compiled, reason):
    config = EncoderConfig(runtime='onnxruntime', **settings)
    with pytest.raises(EncoderUnavailable, match=reason):
        pick_runtime(config, CPU, compiled)


def test_without_the_package_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr('llmseg_ros.encoders.runtime.PACKAGES', ('no_such_package',))
    with pytest.raises(EncoderUnavailable, match=r'pip install -r requirements/onnx\.txt'):
        pick_runtime(EncoderConfig(runtime='onnxruntime'), CPU)


def test_a_gpu_needs_a_provider_for_it():
    import onnxruntime

    if 'CUDAExecutionProvider' in onnxruntime.get_available_providers():
        pytest.skip('this onnxruntime has one')
    config = EncoderConfig(runtime='onnxruntime')
    with pytest.raises(EncoderUnavailable, match='pip install onnxruntime-gpu'):
        pick_runtime(config, torch.device('cuda'))


@pytest.mark.parametrize('name', ['cpu', 'CPU', 'CPUExecutionProvider'])
def test_providers_go_by_short_and_long_names(name):
    config = EncoderConfig(runtime='onnxruntime', providers=(name,))
    assert pick_runtime(config, CPU).providers == ('CPUExecutionProvider',)
