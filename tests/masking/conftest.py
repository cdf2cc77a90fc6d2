"""The views that the masking tests look through."""

import pytest

from holdfast.masking.fingerprint import Fingerprinter, Views


@pytest.fixture(scope="session")
def views() -> Views:
    return Views(Fingerprinter(b"k" * 32), "https://issuer", "agent", "secrets", "prod", "db")
