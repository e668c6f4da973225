"""Adds commits to the history in `results/`: `asv run` on the machine that it comes from, without what is there already.

The arguments are those of `asv run`; without any, the newest commit is measured. Results are written commit by commit:
a run that was stopped goes on where it was when it is started again.
"""

import json
import os
import sys
from pathlib import Path

from asv.machine import Machine

RESULTS = Path(__file__).parent / "results"


def reference():
    """The machine of the history in `results/` that this one is; the program ends where it is none of them."""
    here = Machine.get_defaults()
    for path in sorted(RESULTS.glob("*/machine.json")):
        machine = json.loads(path.read_text())
        if all(machine[key] == here[key] for key in ("arch", "cpu", "num_cpu")):
            return machine
    sys.exit(
        f"No history in {RESULTS} comes from {here['num_cpu']} CPUs of {here['cpu']} ({here['arch']}). "
        "Another machine's results would look like a change of the code; `asv run` keeps them by themselves."
    )


def introduce(machine):
    """Tell asv of the machine: it finds machines by name in a file of the user's, and asks about others."""
    path = Path.home() / ".asv-machine.json"
    known = json.loads(path.read_text()) if path.exists() else {"version": 1}
    known[machine["machine"]] = {key: value for key, value in machine.items() if key != "version"}
    path.write_text(json.dumps(known, indent=4))


if __name__ == "__main__":
    machine = reference()
    introduce(machine)
    run = ["asv", "run", "--machine", machine["machine"], "--skip-existing", *(sys.argv[1:] or ["HEAD^!"])]
    os.execv(sys.executable, [sys.executable, "-m", *run])
