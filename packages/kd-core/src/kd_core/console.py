"""The two consoles: results go to `out`, everything else to `err`."""

from rich.console import Console

_WIDTH = 110  # where there is no terminal, rich would cut tables at 80 columns


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH
    return console


out = _console(stderr=False)
err = _console(stderr=True)
