"""``python -m millrace.infra.embedded.clickhouse --data FOLDER [--port N]``: the endpoint as a process of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from millrace.infra.embedded.clickhouse.run import serve
from millrace.infra.settings import load
from millrace.schemas.errors import MillraceError, UsageError


def main() -> int:
    """Serve until a signal. Exit codes: 0 stopped, 2 wrong settings, 3 path or port in use."""
    parser = argparse.ArgumentParser(prog="millrace-clickhouse", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the data folder, owned by this process alone")
    parser.add_argument("--port", type=int, help="listen here instead of the port in the settings; 0 takes any free port")
    arguments = parser.parse_args()
    try:
        settings = load()
        endpoint = settings.endpoint if arguments.port is None else msgspec.structs.replace(settings.endpoint, port=arguments.port)
        serve(endpoint, arguments.data, settings.clickhouse.database)
    except MillraceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
