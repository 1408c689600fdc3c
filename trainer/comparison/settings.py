"""Everything a comparison of methods can be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from cache_builder.console.options import Names, Option
from cache_builder.format.locations import local_output
from trainer.run.settings import DATA, MACHINE, STUDENT, SharedSettings, TrainSettings


def check_losses(text: str) -> None:
    """Raise :class:`ConfigError` for methods that nobody has."""
    from trainer.comparison.methods import check_methods

    check_methods(text)


class CompareSettings(SharedSettings):
    """Settings of ``kdtrain compare``; each field is the flag of the same name."""

    data: Annotated[str, DATA]
    """Training images, those of the cache or a part."""
    cache: Annotated[Names, DATA] = Field(min_length=1)
    """URL (http://host:8000/v1/caches/NAME) or path of the teacher's cache. Several teachers: once for each,
    as in kdtrain."""
    val_data: Annotated[str, DATA]
    """Held-out images, on which methods are compared."""
    losses: Annotated[str, STUDENT, Option(check=check_losses)]
    """Methods between commas: names (their published objectives), objectives as in 'kd,ce*0.1 +
    kd(temperature=2)*0.9', or all. Hard labels always take part."""
    seeds: Annotated[int, STUDENT] = Field(default=3, ge=1)
    """Runs of each method: seeds 0 to N - 1."""
    out: Annotated[Path, MACHINE, BeforeValidator(local_output)]  # type: ignore[assignment]
    """Folder of the comparison; one that was begun is continued."""
    jobs: Annotated[int | None, MACHINE] = Field(default=None, ge=1)
    """Runs side by side. Default: one per core; on a GPU one after another."""
    workers: Annotated[int | None, MACHINE] = Field(default=None, ge=0)
    """Loader processes of each run. Default: what its share of the cores allows."""

    def of_runs(self) -> TrainSettings:
        """What every run is asked for; objective and seed are its own."""
        return TrainSettings.model_validate(
            self.model_dump(exclude={"losses", "seeds", "jobs"}, exclude_unset=True)
        )
