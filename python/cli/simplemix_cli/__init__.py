"""Starts the program `simplemix` with libtorch out of the torch that this Python has.

The program lies in this package and looks for libtorch in the folder of torch beside it. Torch is looked at, and not imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import NoReturn

#: The release of torch that the program was built for.
TORCH = "2.11"

_INSTALL = f"pip install 'torch=={TORCH}.*'"


def program() -> str:
    """The path of the program."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "simplemix")


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(f"error: {reason}\n")
    sys.exit(2)


def _torch() -> str:
    """The folder of torch; without the right one, one line and exit code 2."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        _refuse(f"torch is not installed for {sys.executable}, and libtorch comes from it: {_INSTALL}")
    folder = os.path.abspath(list(spec.submodule_search_locations)[0])
    try:
        with open(os.path.join(folder, "version.py"), encoding="utf-8") as file:
            found = re.search(r"""^__version__\b[^=]*=\s*["']([^"']+)""", file.read(), re.MULTILINE)
    except OSError:
        found = None
    version = found.group(1) if found else "of a version that it does not tell"
    if not version.startswith(f"{TORCH}."):
        _refuse(f"torch in {folder} is {version}, and this simplemix was built for {TORCH}: {_INSTALL}")
    library = os.path.join(folder, "lib", "libtorch_cpu.so")
    if not os.path.isfile(library):
        _refuse(f"torch in {folder} has no lib/libtorch_cpu.so: {_INSTALL} --force-reinstall")
    return folder


def _search(libraries: str, path: str) -> str | None:
    """What LD_LIBRARY_PATH must be for the program to find these libraries; `None` where it finds them as it is."""
    named = os.path.join(os.path.dirname(path), "..", "..", "torch", "lib")
    others = os.environ.get("LD_LIBRARY_PATH")
    if others:
        # Folders there are searched before those that the program names.
        return libraries + os.pathsep + others
    return None if os.path.realpath(named) == os.path.realpath(libraries) else libraries


def main() -> NoReturn:
    """Becomes the program: its arguments, signals and exit code are those of this process."""
    path = program()
    libraries = os.path.join(_torch(), "lib")
    search = _search(libraries, path)
    if search is not None:
        os.environ["LD_LIBRARY_PATH"] = search
    try:
        os.execv(path, ["simplemix", *sys.argv[1:]])
    except OSError as error:
        _refuse(f"cannot run {path}: {error.strerror}")
