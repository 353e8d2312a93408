"""``millrace asyncapi``: the document that describes every topic, for code generators and readers."""

from __future__ import annotations

import typer

from millrace.schemas.asyncapi import document
from millrace.workers.commands.common import Json, write_json
from millrace.workers.commands.report import say


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(asyncapi)


def asyncapi(json: Json = False) -> None:
    """Print the AsyncAPI 3 document of all topics, as YAML or with --json as JSON."""
    if json:
        write_json(document())
    else:
        say(as_yaml().rstrip())


def as_yaml() -> str:
    """The document as YAML, its keys in their own order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Several lines stand as several lines."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump(document(), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
