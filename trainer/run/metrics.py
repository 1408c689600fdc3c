"""What is measured: running sums over training batches, and held-out accuracy by torchmetrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from cache_builder.datasets.orders import OrderTally
from trainer.replay.batches import make_loader
from trainer.replay.view_dataset import Replayed, ViewDataset

# Held-out pictures are the same every time: a small set is rendered once and kept.
_KEPT_BYTES = 256 * 2**20


class TrainMeter:
    """Sums over the training batches of one epoch, on the device: adding to them waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._samples = 0

    def add(
        self,
        loss: Tensor,
        terms: dict[str, Tensor],
        logits: Tensor,
        labels: Tensor | None,
        teacher: Tensor | None,
        taught: Tensor | None = None,
        are_teachers: bool = True,
    ) -> None:
        """One micro-batch: the objective, its terms, student logits [n, C], what there is to compare with.

        ``taught``: the student's logits of the teacher's classes where another head has those.
        ``labels`` [n]: -1 where there is none; such samples do not count for the accuracies.
        ``are_teachers``: whether the labels are classes of the teacher's logits, so that it may be right.
        """
        count = len(logits)
        guess = logits.detach().argmax(1)
        self._samples += count
        self._accumulate("train_loss", loss.detach() * count)
        for name, value in terms.items():
            self._accumulate(f"train_{name}", value * count)
        if labels is not None:
            self._accumulate("train_top1", (guess == labels).sum())
            self._accumulate("labelled", (labels >= 0).sum())
            if teacher is not None and are_teachers:
                self._accumulate("teacher_top1", (teacher.argmax(1) == labels).sum())
        if teacher is not None:
            self._accumulate(
                "train_agreement",
                ((logits if taught is None else taught).detach().argmax(1) == teacher.argmax(1)).sum(),
            )

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means per sample over all ranks; accuracies in 0..1, losses in nats.

        Accuracies, the student's and the teacher's, are those of labelled samples, and missing where there
        were none.
        """
        sums = self.totals(accelerator)
        count, labelled = sums.pop("samples", 0.0), sums.pop("labelled", 0.0)
        of_labelled = ("train_top1", "teacher_top1")
        if not labelled:
            sums = {name: value for name, value in sums.items() if name not in of_labelled}
        return {name: value / (labelled if name in of_labelled else count) for name, value in sums.items()}

    def totals(self, accelerator: Accelerator) -> dict[str, float]:
        """Sums over all ranks: what a checkpoint in the middle of an epoch keeps."""
        if not self._sums:
            return {}
        samples = torch.tensor(self._samples, dtype=torch.float64, device=self._device)
        values = torch.stack([samples, *self._sums.values()])
        reduced = accelerator.reduce(values, reduction="sum")
        return dict(zip(["samples", *self._sums], reduced.tolist(), strict=True))

    def restore(self, totals: dict[str, float], is_main: bool) -> None:
        """Go on from the totals of an earlier process: the main one takes them, the others the names."""
        share = 1.0 if is_main else 0.0
        self._samples = int(share * totals.get("samples", 0))
        self._sums = {
            name: torch.tensor(share * value, dtype=torch.float64, device=self._device)
            for name, value in totals.items()
            if name != "samples"
        }

    def reset(self) -> None:
        """Begin an epoch."""
        self._sums, self._samples = {}, 0

    def _accumulate(self, name: str, value: Tensor) -> None:
        # float64: the sums of an epoch of ImageNet stay exact to many digits.
        value = value.to(self._device, torch.float64)
        self._sums[name] = self._sums[name] + value if name in self._sums else value


class Evaluation(NamedTuple):
    """Held-out results."""

    top1: float
    """Accuracy, 0..1."""
    top5: float
    """Label among the five largest logits (all, where there are fewer classes), 0..1."""
    nll: float
    """Mean negative log-likelihood of the label, in nats."""


class Evaluator:
    """Evaluates students on a held-out data set, each rank its share."""

    def __init__(
        self,
        dataset: ViewDataset,
        classes: int,
        batch_size: int,
        workers: int,
        accelerator: Accelerator,
        order: OrderTally | None = None,
    ) -> None:
        """``order`` counts how often the student is right under other numberings of the classes."""
        self._accelerator, self._order = accelerator, order
        positions = range(accelerator.process_index, len(dataset), accelerator.num_processes)
        pairs = [(position, 0) for position in positions]
        batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
        pin = accelerator.device.type == "cuda"
        self._loader: DataLoader[Replayed] = make_loader(dataset, batches, workers, pin)
        self._kept: list[Replayed] | None = None
        self._keep = len(pairs) * 3 * dataset.image_size**2 <= _KEPT_BYTES
        self._metrics = MetricCollection(
            {
                "top1": MulticlassAccuracy(classes, average="micro", validate_args=False),
                "top5": MulticlassAccuracy(
                    classes, top_k=min(5, classes), average="micro", validate_args=False
                ),
                "nll": MeanMetric(),
            },
            compute_groups=False,
        ).to(accelerator.device)

    @torch.inference_mode()
    def run(self, model: nn.Module, normalise: nn.Module) -> Evaluation:
        """Evaluate in evaluation mode; the model is left in it.

        ``model``: not the DDP wrapper, which would wait for ranks that have fewer batches.
        """
        model.eval()
        if self._accelerator.num_processes > 1:
            # Each rank has its own running statistics; the saved ones are the main process's.
            for buffer in model.buffers():
                broadcast(buffer)
        self._metrics.reset()
        for batch in self._batches():
            assert isinstance(batch.label, Tensor)
            labels = batch.label.to(self._accelerator.device, non_blocking=True)
            images = batch.image.to(self._accelerator.device, non_blocking=True)
            logits = model(normalise(images)).float()
            if self._order is not None:
                self._order.add(batch.label.numpy(), logits.argmax(1).cpu().numpy())
            self._metrics["top1"].update(logits, labels)
            self._metrics["top5"].update(logits, labels)
            self._metrics["nll"].update(nn.functional.cross_entropy(logits, labels), len(labels))
        values = self._metrics.compute()
        return Evaluation(**{name: float(value) for name, value in values.items()})

    def _batches(self) -> Iterator[Replayed]:
        if self._kept is not None:
            yield from self._kept
            return
        kept = []
        for batch in self._loader:
            if self._keep:
                kept.append(batch)
            yield batch
        if self._keep:
            self._kept = kept
