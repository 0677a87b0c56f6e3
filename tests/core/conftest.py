"""Sessions with room for streams of a thousand."""

from __future__ import annotations

import pytest


@pytest.fixture
def most_in_flight() -> int:
    return 1000
