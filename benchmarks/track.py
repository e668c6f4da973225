"""Adds commits to this machine's history in `results/`: `asv run` under its name, without what is there already.

Another machine's results would look like a change of the code, so that each has a history of its own.

The arguments are those of `asv run`; without any, the newest commit is measured. Results are written commit by commit:
a run that was stopped goes on where it was when it is started again.
"""

import json
import os
import re
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def history():
    """The machine of the history that comes from this one; a new one where there is none, named after its CPUs."""
    from asv.machine import Machine  # here: asv imports all that lies in this folder where it is not installed itself

    here = Machine.get_defaults()
    for path in sorted(RESULTS.glob("*/machine.json")):
        machine = json.loads(path.read_text())
        if all(machine[key] == here[key] for key in ("arch", "cpu", "num_cpu")):
            return machine
    name = re.sub("[^a-z0-9]+", "-", f"{here['cpu']} {here['num_cpu']}cpu".lower())
    return {**here, "machine": name.strip("-")}


def introduce(machine):
    """Tell asv of the machine: it finds machines by name in a file of the user's, and asks about others."""
    path = Path.home() / ".asv-machine.json"
    known = json.loads(path.read_text()) if path.exists() else {"version": 1}
    known[machine["machine"]] = {key: value for key, value in machine.items() if key != "version"}
    path.write_text(json.dumps(known, indent=4))


if __name__ == "__main__":
    machine = history()
    introduce(machine)
    run = ["asv", "run", "--machine", machine["machine"], "--skip-existing", *(sys.argv[1:] or ["HEAD^!"])]
    os.execv(sys.executable, [sys.executable, "-m", *run])
