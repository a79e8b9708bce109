"""Let tools that know no pyproject.toml install the library; everything is declared there."""

from setuptools import setup

setup()
