"""What a command says while it works: a spinner and colours on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console


class Progress:
    """Says one line at a time."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)

    def say(self, text: str, style: str = "") -> None:
        """One finished line."""
        self._console.print(text, style=style or None, markup=False, soft_wrap=True)

    def good(self, text: str) -> None:
        """A line about something that worked."""
        self.say(text, "green")

    def bad(self, text: str) -> None:
        """A line about something that did not."""
        self.say(text, "yellow")

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """While inside, a terminal shows that something is being waited for; elsewhere it is one line."""
        if self._console.is_terminal:
            return self._console.status(text)
        self.say(text)
        return nullcontext()
