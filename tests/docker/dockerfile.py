"""Just enough of the Dockerfile syntax to check ours."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """The instructions from one FROM to the next."""

    name: str
    base: str
    """An image, or the name of another stage."""
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """The arguments of every instruction of that name."""
        return [arguments for instruction, arguments in self.instructions if instruction == name]

    def words(self, name: str) -> list[str]:
        """The words of the last instruction of that name, which must be in exec form."""
        found: list[str] = json.loads(self.all(name)[-1])
        return found

    @property
    def variables(self) -> dict[str, str]:
        """What the ENV instructions set."""
        words = " ".join(self.all("ENV")).split()
        return dict(word.split("=", 1) for word in words)


def parse(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name, in their order; ARGs before the first one are put in."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    stage: Stage | None = None
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], base)
            stage = stages[alias] = Stage(alias, base)
        elif name == "ARG" and stage is None:
            arguments.update([rest.strip().split("=", 1)])
        elif name and stage is not None:
            stage.instructions.append((name, rest.strip()))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and those that it is made from, the first one first."""
    stage = stages[name]
    return [*(lineage(stages, stage.base) if stage.base in stages else []), stage]


def healthcheck(stage: Stage) -> list[str]:
    """The words of the health check's command."""
    words: list[str] = json.loads(stage.all("HEALTHCHECK")[-1].partition("CMD ")[2])
    return words
