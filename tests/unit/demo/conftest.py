"""The files, opened once for all tests of the demo."""

import pytest

from services.console.demo.dataset import DataSet, Product


@pytest.fixture(scope="session")
def data() -> DataSet:
    """The installed files."""
    return DataSet()


@pytest.fixture(scope="session")
def products(data: DataSet) -> dict[int, Product]:
    """The catalogue."""
    return data.products()
