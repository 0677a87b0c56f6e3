"""A WaveSpeed API of one's own: an independent reading of the documentation, for tests, demos and measurements.

It shares no code with the client, so that the two can prove each other.
"""

from __future__ import annotations

from .faults import Faults, Rule
from .ledger import Accepted, Ledger
from .server import Emulator, create_app, run
from .settings import Settings

__all__ = ["Accepted", "Emulator", "Faults", "Ledger", "Rule", "Settings", "create_app", "run"]
