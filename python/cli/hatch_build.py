"""Puts the program into the wheel: `cargo xtask wheel program` builds it, and names it in the environment."""

from __future__ import annotations

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Program(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        program = os.environ.get("SIMPLEMIX_PROGRAM")
        if not program:
            raise SystemExit("SIMPLEMIX_PROGRAM names no program; build this wheel by `cargo xtask wheel program`")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + os.environ["SIMPLEMIX_PLATFORM"]
        build_data["force_include"][program] = "simplemix_cli/bin/simplemix"
        if listed := os.environ.get("SIMPLEMIX_SBOM"):
            build_data["sbom_files"].append(listed)
