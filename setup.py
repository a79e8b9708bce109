"""Add to pyproject.toml what it can't say: every folder of config/, where ament puts it too."""

from pathlib import Path

from setuptools import setup

folders = [Path('config'), *(path for path in sorted(Path('config').rglob('*')) if path.is_dir())]

setup(
    data_files=[
        (f'share/llmseg_ros/{folder}', [str(path) for path in folder.iterdir() if path.is_file()])
        for folder in folders
    ]
)
