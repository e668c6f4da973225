"""A bar on a terminal while something is read, by rich, which is needed for nothing else here."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["track"]

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int | None = None) -> Iterator[Item]:
    """The items, one after the other, under a bar with the time that is left, or how many there were.

    Parameters
    ----------
    items : iterable
    total : int, optional
        How many there will be, if they don't know it themselves.

    Raises
    ------
    ModuleNotFoundError
        There is no rich. No item has been taken then.
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        message = 'a progress bar needs rich; please run: pip install "cpunorm[stats]"'
        raise ModuleNotFoundError(message, name="rich") from None
    columns = TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total)
