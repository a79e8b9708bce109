"""The container files name what is there: they are linted by hand, and cannot be built here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILES = ('docker/Dockerfile', 'docker/Dockerfile.jetson')


@pytest.mark.parametrize('name', DOCKERFILES)
def test_what_is_copied_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding='utf-8')
    copied = re.findall(r'^COPY (\S+) ', text, re.MULTILINE)
    assert len(copied) == 3
    for source in copied:
        assert (ROOT / source).exists(), source
    for requirements in re.findall(r'/tmp/requirements/(\S+\.txt)', text):
        assert (ROOT / 'requirements' / requirements).is_file()


@pytest.mark.parametrize('name', DOCKERFILES)
def test_what_is_taken_out_of_the_requirements_is_in_them(name: str) -> None:
    text = (ROOT / name).read_text(encoding='utf-8')
    core = (ROOT / 'requirements/core.txt').read_text(encoding='utf-8')
    build = (ROOT / 'requirements/build.txt').read_text(encoding='utf-8')
    assert "'^torch(vision)?=='" in text
    assert len(re.findall(r'^torch(?:vision)?==', core, re.MULTILINE)) == 2
    assert "'^cmake=='" in text
    assert len(re.findall(r'^cmake==', build, re.MULTILINE)) == 1


def test_the_services_mount_and_build_what_is_there() -> None:
    services = yaml.safe_load((ROOT / 'compose.yaml').read_text(encoding='utf-8'))['services']
    assert set(services) == {'camera', 'node', 'foxglove', 'llm'}
    assert (ROOT / services['node']['build']['dockerfile']).is_file()
    for name in ('camera', 'node', 'foxglove'):
        profile = services[name]['environment']['FASTRTPS_DEFAULT_PROFILES_FILE']
        assert './config:/config:ro' in services[name]['volumes']
        assert (ROOT / profile.lstrip('/')).is_file()
        assert services[name]['ipc'] == services[name]['network_mode'] == 'host'
