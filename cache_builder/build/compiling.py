"""``--compile``: the teacher is translated, where that can be done."""

from __future__ import annotations

import time

from cache_builder.build.forward import CompilerError
from cache_builder.build.plan import Plan
from cache_builder.console.progress import Progress


def compile_teacher(plan: Plan, progress: Progress) -> None:
    """Have the teacher translated; where that cannot be done, say so and go on without."""
    progress.start("compiling", 1, unit="teacher")
    began = time.monotonic()
    try:
        plan.forward.compile(plan.settings.batch_size, plan.manifest.input.size)
    except CompilerError as error:
        progress.say(
            f"--compile: the teacher could not be compiled ({error}); it runs without, only slower. Is a C++ "
            "compiler such as g++ installed?"
        )
    progress.update(1, f"took {time.monotonic() - began:.0f} s", last=True)
