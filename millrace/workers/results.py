"""The newest judged result of an experiment, as the judge published it: read from Kafka."""

from __future__ import annotations

from millrace.infra.kafka.newest import newest
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable
from millrace.schemas.result import Result
from millrace.schemas.topics import RESULTS
from millrace.schemas.wire import codec


def newest_result(settings: Settings, name: str) -> Result:
    """The newest result. Raises Unavailable where there is none yet, or Kafka does not answer."""
    found = look_up(settings, name)
    if found is None:
        raise Unavailable(
            f"experiment {name} has no result yet: it comes from the role judge, a second after its first assignments were counted;"
            " `millrace status` shows whether the roles experimenter and judge run"
        )
    return found


def look_up(settings: Settings, name: str) -> Result | None:
    """The newest result, or None where there is none yet. Raises Unavailable, and DecodeError for a record that is none."""
    record = newest(settings, RESULTS, name)
    if record is None:
        return None
    result: Result = codec(RESULTS).decode(record.value, record.headers)
    return result
