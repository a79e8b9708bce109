"""Encoders are loaded once for all that is done here."""

import pytest


@pytest.fixture(scope='session', autouse=True)
def loaded_once(encoders_are_loaded_once: None) -> None:
    pass
