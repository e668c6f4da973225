"""Two runs compared: our times and, which says more on noisy machines, our speed-ups over the same libraries.

A process has its luck, and an hour its neighbours: of two runs of the same code half of the speed-ups had quartiles
apart. So a verdict takes more: a change over `CHANCE` too, against most libraries (4 of 54 in the same two runs).
"""

import re
import statistics
import sys
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .figures import COPY, MEMORIES, OURS, counted, seconds, speedup
from .report import PLAIN, three_digits, timing

CHANCE = 1.05
LEGEND = f"""\
Changes of the speed-ups, over 1 is better; slower, faster: by over {CHANCE - 1:.0%} and with quartiles apart.
First their geometric mean, with the verdict of most of them. Times: median, ± half the distance of the quartiles.
"""
COLOURS = {"slower": "bold red", "faster": "green", "same": "", "unknown": "dim"}


class Change(NamedTuple):
    """A ratio over 1 where the new run is better, and whether that is "faster", "slower" or the "same"."""

    ratio: float
    verdict: str

    @property
    def text(self):
        """The ratio, and the verdict where there is one to give."""
        verdict = "" if self.verdict == "same" else f" {self.verdict}"
        return Text(f"{three_digits(self.ratio)}x{verdict}", COLOURS[self.verdict])


def change(old, new):
    """The `Change` between two summaries of what is better when it is larger."""
    ratio = new.median / old.median
    if new.q3 < old.q1 and ratio < 1 / CHANCE:
        return Change(ratio, "slower")
    return Change(ratio, "faster" if new.q1 > old.q3 and ratio > CHANCE else "same")


def overall(changes):
    """The `Change` over several libraries: their geometric mean, the verdict of more than half of them."""
    if not changes:
        return Change(1.0, "unknown")
    verdicts = [change.verdict for change in changes]
    verdict = next((v for v in ("slower", "faster") if verdicts.count(v) > len(verdicts) / 2), "same")
    return Change(statistics.geometric_mean(change.ratio for change in changes), verdict)


class Row(NamedTuple):
    """One case in both runs, with fresh outputs or into a given one."""

    name: str
    memory: str
    times: tuple
    against: dict
    change: Change


def key(result):
    """What makes a result of the other run the same case."""
    return f"{result['case']} ({result['engine']}, threads: {result['threads']})"


def rows(old, new):
    """The `Row` of every case that is in both runs, slow-downs first."""
    before = {key(result): result for result in old["results"]}
    found = []
    for result in new["results"]:
        earlier = before.get(key(result))
        for memory in MEMORIES if earlier else ():
            times = seconds(earlier, memory, OURS), seconds(result, memory, OURS)
            if all(times):
                against = {
                    peer: change(speedup(earlier, memory, peer), speedup(result, memory, peer))
                    for peer in earlier[memory]["against"]
                    if peer in result[memory]["against"]
                }
                found.append(Row(key(result), memory, times, against, overall(list(against.values()))))
    return sorted(found, key=lambda row: (row.change.verdict != "slower", row.change.ratio))


def settings(run):
    """What should be equal in two runs that are compared, by name."""
    where = run["environment"]
    return {name: where[name] for name in where if name not in ("date", "load", "versions")} | where["versions"]


def differences(old, new):
    """A line for each setting that differs, each case that is in one run alone, and each run that was cut short."""
    before, now = settings(old), settings(new)
    for name in before | now:
        if (was := before.get(name, "none")) != (is_ := now.get(name, "none")):
            yield Text(f"{name}: {was} -> {is_}", "yellow")
    keys = [dict.fromkeys(map(key, run["results"])) for run in (old, new)]
    for name, run, mine, others in (("old", old, *keys), ("new", new, *reversed(keys))):
        if run["interrupted"]:
            yield Text(f"the {name} run was interrupted", "yellow")
        yield from (Text(f"only in the {name} run: {case}", "yellow") for case in mine if case not in others)


def listed(row, separator):
    """A row as text: name, times, what changed against whom."""
    text = Text.assemble(row.name, ", ", MEMORIES[row.memory], (separator, ""))
    text.append("ours " + " -> ".join(timing(time).plain for time in row.times), "dim")
    for peer, change in row.against.items():
        text.append(f", {'share of' if peer == COPY else 'vs'} {peer} ", "dim").append(change.text)
    return text


def standing(memory, found):
    """One line on all rows of one kind of memory."""
    verdicts = [row.change.verdict for row in found]
    ratios = [
        statistics.geometric_mean(values)
        for values in (
            [row.change.ratio for row in found],
            [row.times[0].median / row.times[1].median for row in found],
        )
    ]
    return Text(
        f"{MEMORIES[memory]}: speed-ups {three_digits(ratios[0])}x, our times alone {three_digits(ratios[1])}x "
        f"(geometric means of {counted(len(found), 'case')}, over 1 is better); "
        f"{verdicts.count('slower')} slower, {verdicts.count('faster')} faster",
        "bold red" if "slower" in verdicts else "",
    )


def compare(old, new):
    """Print how the run `new` changed from `old`: with colours on a terminal, in ASCII elsewhere.

    Parameters
    ----------
    old, new : dict
        What the JSON of a run says.

    Returns
    -------
    bool
        Whether some case became slower: what an exit code should tell.
    """
    terminal = sys.stdout.isatty() and sys.stdout.encoding.lower().startswith("utf")
    console = Console(force_terminal=terminal, highlight=False, width=None if terminal else 10_000)
    found = rows(old, new)
    table = Table.grid("", "", padding=(0, 2, 0, 0))
    for row in found:
        table.add_row(row.change.text, listed(row, "\n" if terminal else "  "))
    with console.capture() as capture:
        for line in differences(old, new):
            console.print(line)
        console.print(table)
        console.print(f"\n{LEGEND}", style="dim")
        for memory in MEMORIES:
            if some := [row for row in found if row.memory == memory]:
                console.print(standing(memory, some))
    text = capture.get()
    print(text if terminal else re.sub(r" +$", "", text, flags=re.MULTILINE).translate(PLAIN), end="")
    return any(row.change.verdict == "slower" for row in found)
