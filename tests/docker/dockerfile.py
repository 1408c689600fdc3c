"""Just enough of the Dockerfile syntax to check ours."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """The instructions from one FROM to the next."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """The arguments of every instruction of that name."""
        return [arguments for instruction, arguments in self.instructions if instruction == name]

    def words(self, name: str) -> list[str]:
        """The words of the last instruction of that name, which must be in exec form."""
        found: list[str] = json.loads(self.all(name)[-1])
        return found


def parse(path: Path) -> list[Stage]:
    """The stages of a Dockerfile."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        name, _, arguments = line.strip().partition(" ")
        if name == "FROM":
            stages.append(Stage(arguments.split(" AS ")[0]))
        elif name:
            stages[-1].instructions.append((name, arguments.strip()))
    return stages


def healthcheck(stage: Stage) -> list[str]:
    """The words of the health check's command."""
    words: list[str] = json.loads(stage.all("HEALTHCHECK")[-1].partition("CMD ")[2])
    return words
