"""The installed program, run as a user runs it. Needs no package but simplemix-cli and a torch, or what stands in for one.

SIMPLEMIX_TEST_MODEL names a small model as a GGUF file.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest
from pathlib import Path

import simplemix_cli

SCRIPT = os.path.join(sysconfig.get_path("scripts"), "simplemix")


class Case(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def call(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
        environment |= {"SIMPLEMIX_CACHE": str(self.folder / "cache"), **variables}
        return subprocess.run(command, cwd=self.folder, env=environment, text=True, capture_output=True)

    def simplemix(self, *arguments: str) -> str:
        called = self.call(SCRIPT, *arguments)
        self.assertEqual(called.returncode, 0, called.stderr)
        return called.stdout

    def pairs(self, name: str, count: int) -> None:
        def turn(role: str, content: str) -> list[dict[str, str]]:
            return [{"role": role, "content": content}]

        rows = (
            {
                "prompt": turn("user", f"{name} question {i}"),
                "chosen": turn("assistant", f"a good answer {i}"),
                "rejected": turn("assistant", f"no {i}"),
            }
            for i in range(count)
        )
        (self.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def model(self) -> None:
        self.simplemix("import-gguf", os.environ["SIMPLEMIX_TEST_MODEL"], "model")


class Program(Case):
    def test_script_and_module_start_it(self) -> None:
        version = f"simplemix {importlib.metadata.version('simplemix-cli')}"
        self.assertTrue(self.simplemix("--version").startswith(version))
        called = self.call(sys.executable, "-m", "simplemix_cli", "--version")
        self.assertTrue(called.stdout.startswith(version), called.stderr)

    def test_its_exit_code_is_handed_on(self) -> None:
        called = self.call(SCRIPT, "inspect", "none.jsonl")
        self.assertEqual(called.returncode, 2)
        self.assertIn("none.jsonl", called.stderr)

    def test_mixes(self) -> None:
        self.pairs("off", 12)
        self.pairs("on", 12)
        sources = ["--source", "off=off.jsonl", "--source", "on=on.jsonl", "--weights", "off=1/2,on=1/2"]
        self.simplemix("mix", *sources, "--size", "20", "--seed", "1", "-o", "mix.parquet")
        found = json.loads(self.simplemix("inspect", "--json", "mix.parquet"))
        self.assertEqual((found["pairs"], found["sources"]), (20, {"off": 10, "on": 10}))

    def test_trains(self) -> None:
        self.model()
        self.pairs("mine", 8)
        self.simplemix("train", "--model", "model", "--train", "mine.jsonl", "--output", "run", "--max-steps", "2", "--device", "cpu")
        lines = [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line]
        self.assertEqual(len(losses), 2)
        self.assertAlmostEqual(losses[0], math.log(2), places=4)
        self.assertTrue((self.folder / "run/model/model.safetensors").exists())

    def test_processes_find_libtorch_too(self) -> None:
        self.model()
        self.pairs("mine", 8)
        arguments = ["--model", "model", "--train", "mine.jsonl", "--output", "run", "--max-steps", "1", "--device", "cpu"]
        self.simplemix("train", *arguments, "--processes", "2")
        self.assertTrue((self.folder / "run/model/model.safetensors").exists())

    def test_cuda_is_loaded_where_torch_has_it(self) -> None:
        libraries = os.path.join(simplemix_cli._torch(), "lib")
        if not os.path.exists(os.path.join(libraries, "libtorch_cuda.so")):
            self.skipTest("this torch is one for the CPU")
        traced = self.call(simplemix_cli.program(), LD_TRACE_LOADED_OBJECTS="1").stdout
        self.assertNotIn("not found", traced)
        for library in ("libtorch_cuda.so", "libnccl.so"):
            self.assertIn(library, traced)


class Torch(Case):
    """Whatever torch Python has, and none."""

    def stand_in(self, version: str, libraries: str | None) -> str:
        folder = self.folder / "elsewhere" / "torch"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
        (folder / "version.py").write_text(f"__all__ = ['__version__']\n__version__ = '{version}'\n")
        if libraries is not None:
            (folder / "lib").symlink_to(libraries)
        return str(folder.parent)

    def moved(self) -> str:
        """The package in a folder without torch beside it."""
        folder = self.folder / "alone"
        source = Path(simplemix_cli.__file__).parent
        shutil.copytree(source, folder / "simplemix_cli", ignore=shutil.ignore_patterns("simplemix"))
        program = folder / "simplemix_cli" / "bin" / "simplemix"
        try:
            os.link(simplemix_cli.program(), program)
        except OSError:
            shutil.copy2(simplemix_cli.program(), program)
        return str(folder)

    def start(self, *folders: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Starts it where Python knows these folders and none of the environment."""
        path = os.pathsep.join(folders)
        return self.call(sys.executable, "-S", "-m", "simplemix_cli", "--version", PYTHONPATH=path, **variables)

    def refused(self, *folders: str) -> str:
        called = self.start(*folders)
        self.assertEqual((called.returncode, called.stdout), (2, ""))
        self.assertEqual(called.stderr.count("\n"), 1, called.stderr)
        return called.stderr

    def test_without_it_one_line_says_what_to_type(self) -> None:
        line = self.refused(self.moved())
        self.assertEqual(
            line,
            f"error: torch is not installed for {sys.executable}, and libtorch comes from it: pip install 'torch==2.11.*'\n",
        )

    def test_another_version_is_one_line(self) -> None:
        for version in ("2.12.0+cu130", "2.1.1", "2.110.0"):
            with self.subTest(version):
                other = self.stand_in(version, None)
                line = self.refused(other, self.moved())
                expected = f"torch in {other}/torch is {version}, and this simplemix was built for 2.11: pip install 'torch==2.11.*'"
                self.assertEqual(line, f"error: {expected}\n")
            self.setUp()

    def test_one_without_libraries_is_one_line(self) -> None:
        other = self.stand_in("2.11.0", None)
        line = self.refused(other, self.moved())
        self.assertIn("has no lib/libtorch_cpu.so", line)

    def test_a_torch_that_is_not_beside_the_program_serves(self) -> None:
        libraries = os.path.join(simplemix_cli._torch(), "lib")
        if os.path.exists(os.path.join(libraries, "libtorch_cuda.so")):
            self.skipTest("libraries of CUDA are found from where torch is")
        for others in ({}, {"LD_LIBRARY_PATH": "/nowhere"}):
            with self.subTest(others):
                called = self.start(self.moved(), self.stand_in("2.11.0+cpu", libraries), **others)
                self.assertEqual(called.returncode, 0, called.stderr)
            self.setUp()

    def test_a_libtorch_of_the_users_own_is_not_taken(self) -> None:
        other = self.folder / "older"
        other.mkdir()
        (other / "libtorch_cpu.so").write_bytes(b"no library")
        called = self.call(SCRIPT, "--version", LD_LIBRARY_PATH=str(other))
        self.assertEqual(called.returncode, 0, called.stderr)


if __name__ == "__main__":
    unittest.main()
