"""Runs the instructions of a Dockerfile without an engine: in a folder that stands for the image's root.

What an image installs with its system's package manager and the users that it adds are left out; everything
else is run as it is written, with the paths of the image below the folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.docker.dockerfile import Stage, lineage, parse

ROOT = Path(__file__).parents[2]
_FOLDERS = re.compile(r"(?<![\w./-])/(?=(?:opt/kdcache|dist|src|work)\b)")
_OF_THE_SYSTEM = ("apt-get", "useradd")


@dataclass
class Image:
    """The stages that were run in one folder."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    """Put before those that the stages set."""
    done: set[str] = field(default_factory=set)
    _workdir: str = "/"

    def __post_init__(self) -> None:
        if not (self.root / "usr").exists():
            # The Python of the base image.
            subprocess.run([sys.executable, "-m", "venv", self.root / "usr"], check=True)

    def build(self, target: str) -> Stage:
        """Run a stage, and before it those that it is made from or copies from; gives the stage."""
        stages = parse(ROOT / "docker" / "Dockerfile")
        for stage in lineage(stages, target):
            for copied in re.findall(r"--from=(\S+)", " ".join(stage.all("COPY"))):
                self.build(copied)
            if stage.name not in self.done:
                self.done.add(stage.name)
                self._run(stage)
        return stages[target]

    def environment(self, stage: Stage) -> dict[str, str]:
        """The variables of a stage's commands."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("KDCACHE_", "PYTHON"))
        }
        inherited["PATH"] = f"{self.root / 'usr/bin'}:{inherited['PATH']}"
        of_stages = lineage(parse(ROOT / "docker" / "Dockerfile"), stage.name)
        given = {key: value for each in of_stages for key, value in each.variables.items()}
        given["PATH"] = given.get("PATH", "$PATH").replace("$PATH", inherited["PATH"])
        here = {key: self.here(value) for key, value in given.items()}
        return inherited | self.variables | here

    def here(self, text: str) -> str:
        """The paths of the image, where they are really."""
        return _FOLDERS.sub(f"{self.root}/", text)

    def _run(self, stage: Stage) -> None:
        environment = self.environment(stage)
        self._workdir = "/"
        for name, arguments in stage.instructions:
            if name == "ARG":
                environment.update([arguments.split("=", 1)])
            elif name == "WORKDIR":
                self._workdir = arguments
                self._folder.mkdir(parents=True, exist_ok=True)
            elif name == "COPY" and "--from=" not in arguments:
                self._copy(*arguments.split())
            elif name == "RUN" and not arguments.startswith(_OF_THE_SYSTEM):
                command = ["bash", "-euc", self.here(arguments)]
                subprocess.run(command, cwd=self._folder, env=environment, check=True, capture_output=True)

    @property
    def _folder(self) -> Path:
        return self.root / self._workdir.lstrip("/")

    def _copy(self, *names: str) -> None:
        *sources, target = names
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, self._folder / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, self._folder / target)
