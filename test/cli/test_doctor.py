"""`llmseg doctor`, on this very environment."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from llmseg_ros.cli import doctor
from llmseg_ros.cli.doctor import PROFILE_VARIABLES, distro_part, key_part, probe, profile_part
from llmseg_ros.ros import transport

KEY = 'sk-a-key-nobody-may-see'


def test_doctor_tells_what_is_here(
    llmseg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('OPENAI_API_KEY', KEY)
    outcome = llmseg('doctor', '--json', tmp_path / 'doctor.json')
    assert outcome.code == 0, outcome.err
    text = (tmp_path / 'doctor.json').read_text(encoding='utf-8')
    assert KEY not in text + outcome.out + outcome.err
    report = json.loads(text)
    assert report['usable'] is True
    parts = {part['name']: part for part in report['parts']}
    for name in ('Python', 'torch', 'encoder imagenet', 'API key'):
        assert parts[name]['state'] == 'ok'
    for name, module in (('rclpy', 'rclpy'), ('interfaces', 'llmseg_ros.msg')):
        assert (parts[name]['state'] == 'ok') == bool(importlib.util.find_spec(module))
    for part in parts.values():
        assert part['name'] in outcome.out
        assert bool(part['remedy']) == (part['state'] != 'ok')
    assert 'lite2' in parts['encoder imagenet']['detail']
    if importlib.util.find_spec('onnxruntime'):
        detail = parts['onnxruntime']['detail']
        assert re.search(r'\bcpu; encoder.runtime auto is (onnxruntime, cpu|torch)$', detail), (
            detail
        )


def test_doctor_fails_where_nothing_can_be_segmented(
    llmseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, 'PROBES', dict.fromkeys(doctor.PROBES, 'import no_such_module'))
    outcome = llmseg('doctor')
    assert outcome.code == 1
    assert "No module named 'no_such_module'" in outcome.out
    assert outcome.err.startswith('llmseg: segmenting needs torch, encoder imagenet')


@pytest.mark.parametrize(
    ('code', 'state', 'detail'),
    [
        ('print("noise"); print("2.0")', 'ok', '2.0'),
        ('import no_such_module', 'missing', "No module named 'no_such_module'"),
        ('raise ImportError("another NumPy")', 'problem', 'ImportError: another NumPy'),
        ('import os; os.abort()', 'problem', 'crashes (signal 6)'),
        ('import time; time.sleep(60)', 'problem', 'no answer within 1 s'),
    ],
)
def test_probe(monkeypatch: pytest.MonkeyPatch, code: str, state: str, detail: str) -> None:
    monkeypatch.setitem(doctor.PROBES, 'pydensecrf', code)
    monkeypatch.setattr(doctor, 'PROBE_SECONDS', 1)
    part = probe('pydensecrf')
    assert part.state == state
    assert part.detail.startswith(detail)
    assert ('pydensecrf2' in part.remedy) == (state != 'ok')


@pytest.mark.parametrize(
    ('rmw', 'profile', 'state'),
    [
        ('rmw_fastrtps_cpp', 'profile.xml', 'ok'),
        ('rmw_fastrtps_cpp', 'gone.xml', 'problem'),
        ('rmw_fastrtps_cpp', None, 'missing'),
        ('', None, 'missing'),
    ],
)
@pytest.mark.parametrize('variable', PROFILE_VARIABLES)
def test_profile_part(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    rmw: str,
    profile: str | None,
    state: str,
) -> None:
    (tmp_path / 'profile.xml').touch()
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if profile:
        monkeypatch.setenv(variable, str(tmp_path / profile))
    part = profile_part(rmw)
    assert part.state == state
    if state != 'ok':
        assert part.remedy.startswith('export FASTRTPS_DEFAULT_PROFILES_FILE=')


def test_a_sourced_distro_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    assert distro_part().detail == 'humble (sourced)'


@pytest.mark.parametrize(
    ('version', 'named'),
    [('7.1.6', 'jazzy (PyPI'), ('9.1.2', 'kilted (PyPI'), ('11.0.0', 'unknown distro (PyPI')],
)
def test_the_distro_of_the_wheels_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str, named: str
) -> None:
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    monkeypatch.setattr(doctor.metadata, 'version', {'ros-rclpy': version}.__getitem__)
    part = distro_part()
    assert part.state == 'ok'
    assert part.detail.startswith(named)


def test_the_wheels_of_this_environment_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('rclpy')
    wheels = any(d.name == 'ros-rclpy' for d in metadata.distributions())
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    assert (distro_part().state == 'ok') == wheels


@pytest.mark.parametrize(('granted', 'state'), [(212992, 'missing'), (4 << 20, 'ok')])
def test_buffers_too_small_for_an_image_are_told(
    monkeypatch: pytest.MonkeyPatch, granted: int, state: str
) -> None:
    monkeypatch.setattr(doctor, 'granted_buffer', lambda: granted)
    part = doctor.buffer_part()
    assert part.state == state
    assert ('sysctl -w net.core.rmem_max=4194304' in part.remedy) == (state != 'ok')


def test_the_key_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    assert key_part().state == 'missing'


def test_kernel_buffers_are_told() -> None:
    assert 'net.core.rmem_max ' in doctor.buffer_part().detail
    assert 'net.ipv4.ipfrag_high_thresh ' in doctor.buffer_part().detail


@pytest.mark.parametrize(
    ('rmw', 'variable', 'given', 'state'),
    [
        ('rmw_cyclonedds_cpp', 'CYCLONEDDS_URI', 'file://{here}', 'ok'),
        ('rmw_cyclonedds_cpp', 'CYCLONEDDS_URI', '<Domain/>,{here}', 'ok'),
        ('rmw_cyclonedds_cpp', 'CYCLONEDDS_URI', '{here},file://{here}.gone', 'problem'),
        ('rmw_cyclonedds_cpp', 'CYCLONEDDS_URI', '', 'missing'),
        ('rmw_zenoh_cpp', 'ZENOH_CONFIG_OVERRIDE', 'mode="client"', 'ok'),
        ('rmw_zenoh_cpp', 'ZENOH_SESSION_CONFIG_URI', '{here}', 'ok'),
        ('rmw_zenoh_cpp', 'ZENOH_SESSION_CONFIG_URI', '{here}.gone', 'problem'),
        ('rmw_zenoh_cpp', 'ZENOH_CONFIG_OVERRIDE', '', 'missing'),
        ('rmw_connextdds', 'CYCLONEDDS_URI', '', 'ok'),
    ],
)
def test_settings_of_other_middleware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rmw: str, variable: str, given: str, state: str
) -> None:
    (tmp_path / 'own').touch()
    for name in ('CYCLONEDDS_URI', 'ZENOH_CONFIG_OVERRIDE', 'ZENOH_SESSION_CONFIG_URI'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, given.format(here=tmp_path / 'own'))
    part = profile_part(rmw)
    assert part.state == state
    assert bool(part.remedy) == (state != 'ok')


def test_the_settings_that_doctor_names_are_those_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ('CYCLONEDDS_URI', 'ZENOH_CONFIG_OVERRIDE', *PROFILE_VARIABLES):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)  # put back as it was when the test is over
    remedies = [profile_part(rmw).remedy for rmw in ('rmw_cyclonedds_cpp', 'rmw_zenoh_cpp')]
    transport.choose_settings()
    exported = 'export -p | grep -E "CYCLONEDDS_URI|ZENOH_CONFIG_OVERRIDE"'
    of_node = subprocess.run(['sh', '-c', exported], capture_output=True, check=True).stdout
    for name in ('CYCLONEDDS_URI', 'ZENOH_CONFIG_OVERRIDE'):
        monkeypatch.delenv(name)
    commands = [remedy.removesuffix(' where camera drivers are started') for remedy in remedies]
    script = '; '.join([*commands, exported])
    assert subprocess.run(['sh', '-c', script], capture_output=True).stdout == of_node


def test_models_are_listed_with_what_hinders_them(
    llmseg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_clip = pytest.importorskip('open_clip')
    few = ['ViT-B-16-SigLIP2-256', 'MobileCLIP2-S0', 'MobileCLIP2-B', 'RN50', 'ViT-B-32']
    monkeypatch.setattr(open_clip, 'list_models', lambda: few)  # all take half a minute
    outcome = llmseg('doctor', '--models', '--json', tmp_path / 'models.json')
    assert outcome.code == 0, outcome.err
    models = {m['name']: m for m in json.loads((tmp_path / 'models.json').read_text())['models']}
    assert list(models) == few
    assert [bool(models[name]['why_not']) for name in few] == [False, True, False, True, False]
    siglip = models['ViT-B-16-SigLIP2-256']
    assert siglip['patch'] == 16
    assert siglip['resolution'] == 256
    assert siglip['weights'] == 'timm/ViT-B-16-SigLIP2-256'
    assert siglip['parameters'] == 92_930_304
    assert siglip['tower'] == 'SigLIP 2: attention pool, no CLS'
    assert models['MobileCLIP2-B']['patch'] == 16
    assert 'ResNet' in models['RN50']['why_not']
    assert 'no: a FastVit' in outcome.out
    assert '3 of 5 models can be used' in outcome.err


def test_no_name_of_a_model_is_cut_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_clip = pytest.importorskip('open_clip')
    name = 'vit_relpos_medium_patch16_cls_224'
    monkeypatch.setattr(open_clip, 'list_models', lambda: [name])
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    monkeypatch.setenv('COLUMNS', '80')
    doctor.show_models(None)
    rows = capsys.readouterr().out.splitlines()
    assert [row for row in rows if f' {name} ' in row and 'no plain ViT' in row]
