"""Ctrl-C in long calls, Python's lock during them, the size of the package and the time of its import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import simplemix as sm


def big() -> sm.Mixture:
    table = sm.Table.from_rows({"x": str(i)} for i in range(1000))
    return sm.Mixture({"a": table, "b": table}, seed=1, total=200_000_000, epochs=200_000)


def test_ctrl_c_ends_a_long_call() -> None:
    mix = big()
    # A shell starts jobs in the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            mix.receipt()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 10
    assert mix.at(7) == big().at(7)


def test_other_threads_run_during_a_long_call() -> None:
    mix, counted, done = big(), [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            counted[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = counted[0]
    mix.draws(0, 30_000_000)
    during = counted[0] - before
    done.set()
    thread.join()
    assert during > 10


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, simplemix; print(*(m for m in ('torch', 'pyarrow', 'datasets', 'numpy', 'pandas') if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_the_package_is_small_and_quick_to_import() -> None:
    folder = Path(sm.__file__).parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc") < 40 << 20
    # Time of the processor, which does not count what else the machine does.
    code = "import time; start = time.process_time(); import simplemix; print(time.process_time() - start)"
    times = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    assert min(times) < 0.05, times
