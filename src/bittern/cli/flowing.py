"""Help texts that flow to the width of the terminal, however they are cut in the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts.help import DefaultFormatter, InlineText
from rich.text import Text

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions


class FlowingHelp(DefaultFormatter):
    """Shows help as the parser does, but the lines of a docstring as one."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Write one panel."""
        for entry in panel.entries:
            shown = entry.description
            if isinstance(shown, InlineText) and isinstance(shown.primary_renderable, Text):
                shown.primary_renderable = Text(" ".join(shown.primary_renderable.plain.split()))
        super().__call__(console, options, panel)
