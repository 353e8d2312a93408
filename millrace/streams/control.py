"""What every control topic shares: the newest valid version of each name."""

from __future__ import annotations

from millrace.schemas.versions import Versions

__all__ = ["Versions"]
