"""Another build of cpunorm, beside this one in the same process."""

import atexit
import contextlib
import importlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import cpunorm

from .ours import CPUNorm


class Build:
    """The package in a folder or a wheel.

    Parameters
    ----------
    path : str
        A folder that holds ``cpunorm/``, as site-packages and a built tree do, or a wheel, which is unpacked.

    Raises
    ------
    ImportError
        There is none, or it can't be imported.
    """

    def __init__(self, path):
        if Path(path).is_file():
            self._folder = tempfile.mkdtemp(prefix="cpunorm-")
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(self._folder)
        else:
            self._folder = str(Path(path).resolve())
        if not Path(self._folder, "cpunorm", "__init__.py").is_file():
            raise ImportError(f"{path} holds no cpunorm/")
        self.path = path
        self._modules = {}
        with self.imported():
            self.package = importlib.import_module("cpunorm")

    @contextlib.contextmanager
    def imported(self):
        """In it, `cpunorm` is that build to an import; what is imported stays what it is."""

        def taken():
            return {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "cpunorm"}

        ours = taken()
        sys.modules.update(self._modules)
        sys.path.insert(0, self._folder)
        try:
            yield
        finally:
            sys.path.remove(self._folder)
            self._modules = taken()
            sys.modules.update(ours)


class OldCPUNorm(CPUNorm):
    """Another build as a library to compare with, on the engine that ours is on: `cpunorm bench --against`."""

    name = "old"
    memory = "into"

    def __init__(self, threads, build):
        super().__init__(threads, None, build.package)
        self.build = build
        self.version += f" ({build.path})"

    @contextlib.contextmanager
    def context(self):
        """Our engine, which that build imports when it is chosen, and its number of threads."""
        self.engine = cpunorm.get_engine()
        with contextlib.ExitStack() as stack:
            with self.build.imported():
                stack.enter_context(super().context())
            yield
