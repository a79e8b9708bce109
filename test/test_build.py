"""What the build declares, makes and installs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INTERFACES = sorted([*ROOT.glob('msg/*.msg'), *ROOT.glob('srv/*.srv')])
REQUIREMENTS = sorted(ROOT.glob('requirements/*.txt'))

# Exactly ARCHITECTURE's interfaces: a field that changes breaks recorded bags.
FIELDS = {
    'ClassList': {
        'header': 'std_msgs/Header',
        'names': 'sequence<string>',
        'rules': 'sequence<llmseg_ros/ClassRule>',
    },
    'ClassRule': {
        'name': 'string',
        'minimum_score': 'float',
        'minimum_area': 'uint32',
        'also': 'sequence<string>',
        'never': 'sequence<string>',
    },
    'ClassInfo': {
        'id': 'uint16',
        'name': 'string',
        'subclasses': 'sequence<string>',
        'source': 'string',
        'contrasts': 'sequence<string>',
    },
    'LabelMap': {
        'header': 'std_msgs/Header',
        'version': 'uint32',
        'classes': 'sequence<llmseg_ros/ClassInfo>',
        'rules': 'sequence<llmseg_ros/ClassRule>',
    },
    'ClassMask': {
        'class_id': 'uint16',
        'class_name': 'string',
        'score': 'float',
        'area': 'uint32',
        'roi': 'sensor_msgs/RegionOfInterest',
        'mask': 'sensor_msgs/Image',
        'instance': 'uint16',
    },
    'ClassMaskArray': {
        'header': 'std_msgs/Header',
        'label_version': 'uint32',
        'height': 'uint32',
        'width': 'uint32',
        'masks': 'sequence<llmseg_ros/ClassMask>',
    },
    'SetClasses_Request': {
        'names': 'sequence<string>',
        'rules': 'sequence<llmseg_ros/ClassRule>',
    },
    'SetClasses_Response': {
        'success': 'boolean',
        'message': 'string',
        'label_map': 'llmseg_ros/LabelMap',
    },
    'PatchFeatures': {
        'header': 'std_msgs/Header',
        'encoder': 'string',
        'height': 'uint32',
        'width': 'uint32',
        'rows': 'uint32',
        'columns': 'uint32',
        'dimension': 'uint32',
        'stride_x': 'double',
        'stride_y': 'double',
        'offset_x': 'double',
        'offset_y': 'double',
        'data': 'sequence<uint16>',
    },
    'DescribeNames_Request': {'names': 'sequence<string>', 'subclasses': 'boolean'},
    'DescribeNames_Response': {
        'success': 'boolean',
        'message': 'string',
        'encoder': 'string',
        'names': 'sequence<string>',
        'rows': 'sequence<uint32>',
        'dimension': 'uint32',
        'embeddings': 'sequence<float>',
    },
    'SegmentImage_Request': {
        'image': 'sensor_msgs/Image',
        'compressed': 'sensor_msgs/CompressedImage',
        'camera': 'string',
        'max_age': 'double',
        'names': 'sequence<string>',
        'rules': 'sequence<llmseg_ros/ClassRule>',
        'minimum': 'double',
        'background': 'double',
    },
    'SegmentImage_Response': {
        'success': 'boolean',
        'message': 'string',
        'header': 'std_msgs/Header',
        'labels': 'sensor_msgs/Image',
        'confidence': 'sensor_msgs/Image',
        'masks': 'llmseg_ros/ClassMaskArray',
        'label_map': 'llmseg_ros/LabelMap',
        'stages': 'sequence<string>',
        'milliseconds': 'sequence<double>',
    },
    'GetClasses_Request': {},
    'GetClasses_Response': {'label_map': 'llmseg_ros/LabelMap'},
}

built = pytest.mark.skipif(
    importlib.util.find_spec('llmseg_ros.msg') is None, reason='the interfaces are not built here'
)


def package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / 'package.xml').getroot()


def pyproject() -> str:
    return (ROOT / 'pyproject.toml').read_text(encoding='utf-8')  # Python 3.10 has no tomllib


def pins(path: Path) -> dict[str, list[str]]:
    """Return the requirements of a file by package name."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding='utf-8').splitlines():
        requirement = line.split('#')[0].strip()
        if requirement:
            found.setdefault(re.split(r'[=;<>~! ]', requirement)[0].lower(), []).append(requirement)
    return found


def load_setup():
    spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'scripts' / 'setup_env.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['setup_env'] = module  # where NamedTuple looks its annotations up
    spec.loader.exec_module(module)
    return module


@built
@pytest.mark.parametrize('name', FIELDS)
def test_interface_has_its_fields_and_can_be_made(name: str) -> None:
    service, _, part = name.partition('_')
    module = importlib.import_module('llmseg_ros.srv' if part else 'llmseg_ros.msg')
    message_type = getattr(getattr(module, service), part) if part else getattr(module, name)
    assert message_type.get_fields_and_field_types() == FIELDS[name]
    assert message_type() == message_type()


def test_every_interface_file_is_declared_and_tested() -> None:
    declared = re.findall(r'\b(?:msg|srv)/\w+\.(?:msg|srv)', (ROOT / 'CMakeLists.txt').read_text())
    assert sorted(declared) == [str(path.relative_to(ROOT)) for path in INTERFACES]
    assert {path.stem for path in INTERFACES} == {name.partition('_')[0] for name in FIELDS}


@built
@pytest.mark.parametrize('executable', ['bin/llmseg', 'lib/llmseg_ros/llmseg'])
def test_llmseg_is_installed_and_answers(executable: str) -> None:
    program = Path(sys.prefix, executable)
    result = subprocess.run([program, '--help'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'segment' in result.stdout


@built
@pytest.mark.parametrize('name', ['seg_node', 'semantic_map'])
def test_node_is_installed(name: str) -> None:
    program = Path(sys.prefix, 'lib/llmseg_ros', name)
    assert program.stat().st_mode & 0o111
    interpreter, _, script = program.read_text().partition('\n')
    assert Path(interpreter[2:]).samefile(sys.executable)
    module = re.search(r'from (\S+) import main', script)[1]
    assert callable(importlib.import_module(module).main)


@built
@pytest.mark.parametrize('name', ['config/offline.yaml', 'launch/seg.launch.py', 'package.xml'])
def test_share_holds(name: str) -> None:
    assert Path(sys.prefix, 'share/llmseg_ros', name).is_file()


@pytest.mark.parametrize('name', ['offline.yaml', 'fastdds.xml', 'subclasses/voc.yaml'])
def test_configuration_is_found(name: str) -> None:
    from llmseg_ros.files import shipped_path

    assert shipped_path(f'config/{name}').is_file()


def test_library_installed_without_ros_finds_its_configuration(tmp_path: Path) -> None:
    copy = tmp_path / 'copy'  # a build leaves folders behind
    for name in ('llmseg_ros', 'config', 'requirements'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, '-m', 'pip', '--quiet', 'install']
    # Without --ignore-installed pip would take the installed package away.
    alone = ['--no-deps', '--no-build-isolation', '--ignore-installed']
    subprocess.run([*pip, *alone, '--prefix', tmp_path / 'here', copy], check=True)

    source, installed = copy / 'config', tmp_path / 'here/share/llmseg_ros/config'
    files = sorted(path.relative_to(source) for path in source.rglob('*') if path.is_file())
    there = sorted(path.relative_to(installed) for path in installed.rglob('*') if path.is_file())
    assert there == files
    code = (
        'import sys; sys.path.insert(0, sys.argv[1]); from llmseg_ros.files import shipped_path; '
        'print(shipped_path("config/offline.yaml"))'
    )
    packages = next((tmp_path / 'here').glob('lib/python*/site-packages'))
    package_data = {
        'reports/page': 'report.html.j2',
        'live/page': 'live.html.j2',
        'encoders/wordnet': 'synsets.tsv',
    }
    for folder, file in package_data.items():
        paths = [root / 'llmseg_ros' / folder for root in (copy, packages)]
        files, there = ({path.name for path in root.iterdir()} for root in paths)
        assert there == files > {file}
    command = [sys.executable, '-c', code, packages]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == installed / 'offline.yaml'
    assert (tmp_path / 'here/bin/llmseg').is_file()


def test_package_xml_is_an_interface_package() -> None:
    package = package_xml()
    assert package.get('format') == '3'
    assert package.findtext('name') == 'llmseg_ros'
    assert package.findtext('license') == 'Apache-2.0'
    assert package.findtext('export/build_type') == 'ament_cmake'
    assert package.findtext('member_of_group') == 'rosidl_interface_packages'


def test_versions_agree() -> None:
    version = re.search(r'^version = "(.+)"$', pyproject(), re.MULTILINE)[1]
    assert package_xml().findtext('version') == version


@pytest.mark.parametrize('path', REQUIREMENTS, ids=lambda path: path.stem)
def test_requirements_are_pinned_and_reasoned(path: Path) -> None:
    for name, requirements in pins(path).items():
        assert all('==' in requirement for requirement in requirements)
        markers = [requirement.partition(';')[2].strip() for requirement in requirements]
        both = ['python_version >= "3.11"', 'python_version < "3.11"']
        assert markers in ([''], both), f'{name} is not pinned once for every Python'
    lines = [line for line in path.read_text().splitlines() if not line.startswith('#')]
    assert all('#' in line or 'python_version <' in line for line in lines if line)


def test_no_package_is_pinned_in_two_files() -> None:
    # The two ROS distributions exclude each other, the rest is installed together.
    names = [name for path in REQUIREMENTS if 'ros-' not in path.stem for name in pins(path)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [(['humble'], 'ROS_DISTRO=jazzy make test'), ([], 'required: distro')],
)
def test_setup_refuses_what_it_can_not_do(arguments: list[str], sentence: str) -> None:
    command = [sys.executable, ROOT / 'scripts' / 'setup_env.py', *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0
    assert sentence in result.stderr
    assert 'Traceback' not in result.stderr


def test_setup_misses_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', '')
    setup = load_setup()
    with pytest.raises(setup.SetupError, match='gcc is not found'):
        setup.check_machine()


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('version_info', (3, 9, 1), r'3\.10 to 3\.14 is needed'),
        ('version_info', (3, 15, 0), r'3\.10 to 3\.14 is needed'),
        ('platform', 'darwin', 'native ROS 2'),
    ],
)
def test_setup_refuses_another(monkeypatch, name: str, value: object, message: str) -> None:
    setup = load_setup()
    monkeypatch.setattr(sys, name, value)
    with pytest.raises(setup.SetupError, match=message):
        setup.check_machine()


def test_setup_wants_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup = load_setup()
    setup.check_disk(tmp_path)
    monkeypatch.setattr(setup, 'DISK_GB', 10**9)
    with pytest.raises(setup.SetupError, match='GB are free'):
        setup.check_disk(tmp_path)


@pytest.mark.parametrize(
    ('state', 'log', 'left'),
    [
        ('', '', {}),
        ('not json', '', {}),
        ('{"core": "1"}', 'Installing collected packages: a', {'core': '1'}),
        ('{"core": "1", "installing": "test"}', 'Collecting a', {'core': '1'}),
        ('{"core": "1", "installing": "test"}', 'Installing collected packages: a', {}),
    ],
)
def test_setup_goes_on_after(tmp_path: Path, state: str, log: str, left: dict[str, str]) -> None:
    setup = load_setup()
    environment = setup.Environment('jazzy')
    environment.state_file = tmp_path / 'state.json'
    environment.log = tmp_path / 'log'
    environment.state_file.write_text(state)
    environment.log.write_text(log)
    assert environment.state() == left


@pytest.mark.parametrize(
    ('code', 'sentence'),
    [
        ('print("x: [Errno 28] No space left on device"); exit(1)', 'the disk is full'),
        ('print("NewConnectionError(...)"); exit(1)', 'can not be reached'),
        ('print("ERROR: No matching distribution for a"); print("b"); exit(1)', 'No matching'),
        ('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', 'ended with -9'),
    ],
)
def test_a_failed_command_is_told_in_a_sentence(tmp_path: Path, code: str, sentence: str) -> None:
    setup = load_setup()
    log = tmp_path / 'log'
    with pytest.raises(setup.SetupError, match=sentence) as caught:
        setup.run([sys.executable, '-c', code], log, setup.clean_environ())
    assert str(log) in str(caught.value)
    assert '\n' not in str(caught.value)


@built
def test_second_set_up_finds_nothing_to_do() -> None:
    state = json.loads(Path(sys.prefix, 'llmseg_setup.json').read_text())
    setup = load_setup()
    distro = next(d for d in setup.DISTROS if setup.Environment(d).path == Path(sys.prefix))
    steps = setup.Environment(distro).steps()
    unchanged = [step for step in steps if step.name != 'links']  # a new file is linked by make
    assert {step.name: step.key for step in unchanged} == {
        step.name: state[step.name] for step in unchanged
    }
