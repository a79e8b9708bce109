"""The versions that numbers depend on."""

from __future__ import annotations

import platform
from importlib import metadata

REPORTED_PACKAGES = (
    'llmseg_ros',
    'torch',
    'onnxruntime',
    'numpy',
    'opencv-python-headless',
    'open_clip_torch',
    'timm',
    'pydensecrf2',
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    found = {'python': platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
