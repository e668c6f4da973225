"""A fresh Python process, for what a process decides once: imports, environment variables, forks."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import cpunorm

PACKAGE = Path(cpunorm.__file__).parent
# An editable installation would find in the clone what another folder's package lacks.
ALONE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in f.__module__]; "


def python(code, folder=PACKAGE.parent, timeout=100, **environment):
    """Run `code` on the package in `folder`, with no variable that steers cpunorm but those given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CPUNORM_", "OMP_", "PYTHONPATH"))}
    command = [sys.executable, "-P", "-c", code if folder == PACKAGE.parent else ALONE + code]
    environment = {**kept, "PYTHONPATH": str(folder), **environment}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, process_group=0) as process:
        try:
            out, err = process.communicate(timeout=timeout)  # a hang, as of libgomp after a fork, must end the test
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the children that it forked
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def output(code, **environment):
    """What `code` prints; an AssertionError with its traceback unless it ends well."""
    done = python(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def error(code, **environment):
    """The last line of the traceback that `code` ends with; an AssertionError if it doesn't end so (a crash)."""
    done = python(code, **environment)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    return done.stderr.strip().splitlines()[-1]
