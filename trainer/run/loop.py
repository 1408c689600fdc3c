"""The training loop: one page, one direction."""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.objective.reduction import Counts
from trainer.replay.batches import Batch, TrainingStream
from trainer.run import bilevel
from trainer.run.assemble import Run, assemble
from trainer.run.forward import counts_of, outcome_of, per_image, to_device
from trainer.run.inputs import Inputs, claim_output
from trainer.run.metrics import Evaluation, Evaluator, TrainMeter
from trainer.run.optim import lr_at, set_lr
from trainer.run.peers import agree, watched
from trainer.run.progress import Display, Silent
from trainer.run.report import write_report
from trainer.run.run_folder import MetricsLog, Row, RunFolder
from trainer.run.settings import TrainSettings
from trainer.run.state import Keeper
from trainer.run.stop import StopRequest

# Asking whether all numbers were finite waits for the device: one of fifty steps does.
_STEPS_BETWEEN_CHECKS = 50


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    out: str
    """Where the run lies, as in its settings."""
    last: Evaluation | None
    """Held-out results after the last epoch; None without held-out data."""
    best_top1: float | None
    """Largest held-out top-1 of all epochs, 0..1."""
    best_epoch: int | None
    """The epoch it belongs to, counted from 1."""
    seconds: float
    """Training and evaluation, over all processes that worked on the run."""
    was_finished: bool
    """The run was complete before: nothing had to be done."""


def train(
    settings: TrainSettings,
    *,
    resume: bool = False,
    display: Display | None = None,
    inputs: Inputs | None = None,
    folder: RunFolder | None = None,
) -> TrainResult:
    """Train a student, or go on with a run that was stopped.

    ``inputs``, ``folder``: of these settings, by one who holds ``--out``; None = the run takes and opens them
    itself.
    A signal ends it after the step at hand, with a checkpoint: ``KeyboardInterrupt`` is raised then. Raises
    the :class:`KDCacheError` of whatever is wrong; checkpoints stay good whatever happens.
    """
    with watched(), ExitStack() as stack:
        folder = folder or claim_output(settings, resume, stack)
        run = assemble(settings, stack, inputs)
        if run.accelerator.is_main_process:
            folder.begin(run.config)
            folder.publish()
        run.accelerator.wait_for_everyone()
        meter = TrainMeter(run.accelerator.device)
        keeper = Keeper(run, folder, meter)
        keeper.restore()
        was_finished = keeper.step == run.plan.steps
        if not was_finished:
            _run_epochs(run, folder, keeper, meter, stack, display or Silent())
        if run.accelerator.is_main_process:
            write_report(folder, run)
            folder.publish()
        return _result(folder, keeper, was_finished)


def _run_epochs(
    run: Run, folder: RunFolder, keeper: Keeper, meter: TrainMeter, stack: ExitStack, display: Display
) -> None:
    settings, plan, accelerator = run.config.settings, run.plan, run.accelerator
    steps_per_epoch, first_step = plan.steps_per_epoch, keeper.step
    stop = stack.enter_context(StopRequest())
    stream = stack.enter_context(
        TrainingStream(
            run.dataset, plan, first_step, run.caches,
            fetch=settings.fetch, workers=run.workers, pin_memory=accelerator.device.type == "cuda",
        )
    )  # fmt: skip
    evaluator = None
    if run.held_out is not None:
        batch_size = settings.batch_size // (accelerator.num_processes * settings.accumulation)
        evaluator = Evaluator(run.held_out, run.config.classes, batch_size, run.workers, accelerator)
    log = None
    if accelerator.is_main_process:
        log = MetricsLog(folder, first_step, settings.tensorboard)
        stack.callback(log.close)
        display = stack.enter_context(display)
        display.start(run, first_step)
    else:
        display = Silent()

    warmup_steps = settings.warmup_epochs * steps_per_epoch
    # Making the loader drew random numbers; from here on they are the student's alone.
    keeper.restore_random_state()
    run.model.train()
    epoch_began = time.monotonic()
    epoch_first_step = first_step
    for step in range(first_step, plan.steps):
        epoch = plan.epoch_of(step)
        batches = stream.take(settings.accumulation, give_up=stop)
        must_stop, must_save = agree(accelerator, stop() or batches is None, keeper.is_due)
        if must_stop or must_save:
            keeper.save()
        if must_stop or batches is None:
            raise stop.error(f"stopped after step {step} of {plan.steps}; --resume goes on from there")
        lr = lr_at(step, plan.steps, warmup_steps, settings.lr)
        train_step(run, batches, step, lr, meter)
        keeper.step = step + 1
        display.stepped(step + 1)
        is_last_of_epoch = (step + 1) % steps_per_epoch == 0
        if is_last_of_epoch or (step + 1) % _STEPS_BETWEEN_CHECKS == 0:
            keeper.check_values()

        if is_last_of_epoch:
            row: Row = {"step": step + 1, "epoch": epoch + 1, "lr": lr, **meter.means(accelerator)}
            # The means waited for the device, so this is the time of the whole epoch.
            seconds = time.monotonic() - epoch_began
            done = (step + 1 - epoch_first_step) * settings.batch_size
            row |= {"epoch_s": round(seconds, 3), "samples_per_s": round(done / seconds, 1)}
            meter.reset()
            evaluation = None
            if evaluator is not None:
                evaluation = evaluator.run(run.student, run.normalise)
                row |= {f"val_{name}": value for name, value in evaluation._asdict().items()}
                run.model.train()
            keeper.finish_epoch(epoch + 1, evaluation)
            if log is not None:
                log.write(row)
            display.epoch(row, is_best=keeper.best_epoch == epoch + 1)
            keeper.save()
            epoch_began, epoch_first_step = time.monotonic(), step + 1
    if log is not None:
        log.close()  # before what it wrote is copied for the last time


def train_step(run: Run, batches: list[Batch], step: int, lr: float, meter: TrainMeter) -> None:
    """One optimiser step on this process's micro-batches. ``step`` counts from 0."""
    accelerator = run.accelerator
    set_lr(run.optimizer, lr)
    if bilevel.is_due(run, step):
        bilevel.update(run, to_device(run, batches[0]), step, lr)
    counts = counts_of(run, batches)
    for index, batch in enumerate(batches):
        # Gradients meet once a step, with the last micro-batch.
        last = index == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(run.model):
            loss = _forward(run, batch, run.plan.epoch_of(step), meter, counts)
            accelerator.backward(loss / len(batches))
    _meet_joint_gradients(run)
    if run.config.settings.clip_grad is not None:
        accelerator.clip_grad_norm_(run.model.parameters(), run.config.settings.clip_grad)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.objective.advance((step + 1) / run.plan.steps, lambda value: _mean(run, value))


def _forward(run: Run, batch: Batch, epoch: int, meter: TrainMeter, counts: Counts | None) -> Tensor:
    """The objective of one micro-batch, noted by losses that follow it, and measured."""
    on_device = to_device(run, batch)
    outcome = outcome_of(run, run.model, on_device, epoch, counts)
    run.objective.note(outcome.values)
    meter.add(
        outcome.total,
        outcome.values,
        outcome.answer,
        *per_image(run, on_device),
        taught=outcome.taught,
        are_teachers=run.config.teacher_classes is None,
    )
    return outcome.total


def _meet_joint_gradients(run: Run) -> None:
    """Average the gradients of what losses train along: they are no part of the wrapped student."""
    if run.accelerator.num_processes == 1:
        return
    for parameter in run.objective.joint_parameters():
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = _mean(run, own)


def _mean(run: Run, value: Tensor) -> Tensor:
    """Over the processes."""
    mean: Tensor = run.accelerator.reduce(value, reduction="mean")
    return mean


def _result(folder: RunFolder, keeper: Keeper, was_finished: bool) -> TrainResult:
    rows = [row for row in folder.read_metrics() if "val_top1" in row]
    last = Evaluation(*(rows[-1][f"val_{name}"] for name in Evaluation._fields)) if rows else None
    return TrainResult(
        out=folder.name,
        last=last,
        best_top1=keeper.best_top1,
        best_epoch=keeper.best_epoch if rows else None,
        seconds=keeper.seconds,
        was_finished=was_finished,
    )
