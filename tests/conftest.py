"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

from allkit.synthetic import make_twin


def _folder_from(variable: str) -> Path:
    value = os.environ.get(variable, "")
    if not value or not Path(value).is_dir():
        pytest.skip(f"set {variable} to run this test on genuine data")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def cnmc_folder() -> Path:
    """Folder of genuine C-NMC images."""
    return _folder_from("ALLKIT_TEST_CNMC")


@pytest.fixture(scope="session")
def smears_folder() -> Path:
    """Folder of genuine blood smears, one folder per class."""
    return _folder_from("ALLKIT_TEST_SMEARS")


@pytest.fixture(scope="session")
def weights_home() -> Path:
    """Folder that serves as KERAS_HOME and holds ImageNet weights."""
    return _folder_from("ALLKIT_TEST_WEIGHTS")


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic twin: 60 training images."""
    return make_twin(tmp_path_factory.mktemp("twin") / "twin", images=60, seed=0)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep decoded images of the tests out of the user's cache."""
    os.environ.setdefault("ALLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
