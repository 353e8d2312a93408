"""What it takes to kill workers on a real broker and to say afterwards whether anything was lost, doubled or torn.

``Rig`` is one isolated set of topics, groups and state. ``publish`` fills its inputs, ``WorkerProcess`` runs a worker that dies at named
points, ``InThread`` runs one in this process, ``gather`` reads back what is there, ``check`` names every anomaly in it.
"""

from __future__ import annotations

from tests.integration.harness.checker import Anomaly, Answer, Evidence, Kind, check
from tests.integration.harness.processes import Supervised, WorkerProcess
from tests.integration.harness.publish import Publisher
from tests.integration.harness.readback import gather, outputs, settled
from tests.integration.harness.rig import COUNTING, ECHO, Bench, Rig, delete_topic
from tests.integration.harness.threads import InThread

__all__ = [
    "COUNTING",
    "ECHO",
    "Answer",
    "Anomaly",
    "Bench",
    "Evidence",
    "InThread",
    "Kind",
    "Publisher",
    "Rig",
    "Supervised",
    "WorkerProcess",
    "check",
    "delete_topic",
    "gather",
    "outputs",
    "settled",
]
