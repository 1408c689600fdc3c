"""What a comparison consists of."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import Field, ValidationError

from cache_builder.format import ConfigError, DataError
from cache_builder.format.frozen import Frozen
from trainer.comparison.folder import LOGS, PLAN, RUNS
from trainer.comparison.methods import BASELINE, Method, parse_methods
from trainer.run.assemble import assemble
from trainer.run.config import RunConfig, differing_fields
from trainer.run.device import resolve_device
from trainer.run.inputs import Inputs
from trainer.run.run_folder import METRICS, REPORT
from trainer.run.settings import TrainSettings
from trainer.run.text_files import write_text


class Comparison(Frozen):
    """What is compared; the same whenever the comparison goes on."""

    product_version: str
    baseline: RunConfig
    """Hard labels with seed 0. The other runs differ in objective and seed; each decides its precision."""
    methods: tuple[Method, ...]
    """Hard labels first."""
    seeds: int = Field(ge=1)
    """Runs of a method: seeds 0 to seeds - 1."""

    def jobs(self, out: Path) -> list[Job]:
        """All runs, seed by seed, so that every method has a first result early."""
        return [Job(method, seed, out) for seed in range(self.seeds) for method in self.methods]


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a comparison. Each is itself only: objectives have no hash."""

    method: Method
    seed: int
    out: Path
    """The folder of the comparison."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.method.label}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.out / RUNS / self.method.slug / f"seed-{self.seed}"

    @property
    def log(self) -> Path:
        """What it said."""
        return self.out / LOGS / f"{self.method.slug}-seed-{self.seed}.log"

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do: a report is the last thing that a run writes."""
        return (self.folder / REPORT).exists()

    @property
    def epochs_done(self) -> int:
        """Epochs in its metrics."""
        path = self.folder / METRICS
        return path.read_bytes().count(b"\n") if path.exists() else 0


def plan_comparison(
    settings: TrainSettings, losses: str, seeds: int, inputs: Inputs | None = None
) -> Comparison:
    """What is to be compared, all of it checked: cache, data, student and every objective."""
    device = resolve_device(settings.device)
    with ExitStack() as stack:
        # On the CPU: the parent of the runs must not hold memory of a GPU.
        asked = settings.model_copy(update={"loss": BASELINE, "seed": 0, "device": "cpu"})
        baseline = assemble(asked, stack, inputs).config
    decided = {"device": device, "precision": settings.precision, "workers": settings.workers}
    baseline = baseline.model_copy(update={"settings": baseline.settings.model_copy(update=decided)})
    methods = parse_methods(losses, baseline.objective_benchmark)
    return Comparison(product_version=version("kdcache"), baseline=baseline, methods=methods, seeds=seeds)


def begin(out: Path, plan: Comparison) -> None:
    """Note the plan; raise :class:`ConfigError` naming what differs from a stored one."""
    path = out / PLAN
    if path.exists():
        differing = differing_settings(_stored(path), plan)
        if differing:
            raise ConfigError(
                f"{out} holds a comparison of other settings (stored -> asked for):\n  "
                + "\n  ".join(differing)
                + "\nuse the stored settings to go on with it, or another --out"
            )
    else:
        write_text(path, plan.model_dump_json(indent=1))
    (out / LOGS).mkdir(exist_ok=True)


def differing_settings(stored: Comparison, wanted: Comparison) -> list[str]:
    """What differs between two comparisons, one ``field: stored -> wanted`` line each."""
    lines = differing_fields(stored.baseline, wanted.baseline)
    if stored.seeds != wanted.seeds:
        lines.append(f"seeds: {stored.seeds} -> {wanted.seeds}")
    old, new = ({method.name: method.minimises for method in plan.methods} for plan in (stored, wanted))
    for name in old | new:
        before, now = old.get(name, "not compared"), new.get(name, "not compared")
        if before != now:
            lines.append(f"losses, {name}: {before} -> {now}")
    return lines


def _stored(path: Path) -> Comparison:
    try:
        return Comparison.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DataError(f"{path} is not the plan of a comparison of this release: {error}") from error
