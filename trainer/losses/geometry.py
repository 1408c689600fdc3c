"""A fusion of teacher and labels whose ratio a small network learns for every sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.losses.contract import ClassCounts, Labels, Logits, PerSample, StatefulLoss
from trainer.losses.probabilities import kl_divergence, log_probs

_HIDDEN, _LEARNING_RATE, _AVERAGE_DECAY = 64, 1e-3, 0.9
_PARTS = 9


@dataclass(frozen=True, eq=False)
class TriangularGeometry(StatefulLoss):
    """``mean_b [a_b T^2 KL(p_T || q_T) + (1 - a_b) CE_b]``, ``a = sigmoid(net(state))``, in nats.

    TGeo-KD, arXiv 2312.15112. The state of a sample, 9 C numbers: student S, teacher T, one-hot label G, the
    teacher's running mean S' of the label's class (probabilities at T = 1), and the squared edges of the
    triangles S T G and S S' G. The network has its own update (``learn_from``), on samples the student is not
    trained on: the gradient of their loss after one virtual step of the student. For the student's own
    gradient a is a constant.

    Contains the cross-entropy with the label. Network (64 hidden units, last layer zero: a begins at 1/2),
    learning rate (Adam, 1e-3) and the decay of the class means (0.9) are ours.
    """

    name = "tgeo"
    paper = "Hu et al., TGeo-KD, arXiv 2312.15112, ICLR 2024"
    unconfirmed = "network, its learning rate and schedule: read in a third party's restatement"
    needs_labels = True
    needs_held_out = True

    temperature: float = 4.0
    """T > 0, of the divergence."""

    def prepared(self, counts: ClassCounts) -> TriangularGeometry:
        """Make the network and the class means for this many classes."""
        self._build(len(counts))
        return self

    def formula(self, student: Logits, teacher: Logits, labels: Labels) -> PerSample:
        """The network is made by the first batch where nobody prepared the loss."""
        if not self._modules:
            self._build(student.shape[1])
            self.to(student.device)
        ratios = self.ratios(student.detach(), teacher, labels)
        log_p, log_q = log_probs(teacher, self.temperature), log_probs(student, self.temperature)
        divergence = self.temperature**2 * kl_divergence(log_p, log_q)
        hard = F.cross_entropy(student, labels, reduction="none")
        return ratios * divergence + (1 - ratios) * hard

    def ratios(self, student: Logits, teacher: Logits, labels: Labels) -> PerSample:
        """a of every sample, 0..1; carries gradient into the network alone."""
        means = self.get_buffer("class_means").to(student.dtype)
        s, t, mean = log_probs(student).exp(), log_probs(teacher).exp(), means[labels]
        g = F.one_hot(labels, student.shape[1]).to(student.dtype)
        edges = [(s - t), (t - g), (s - g), (s - mean), (mean - g)]
        state = torch.cat([s, t, g, mean, *(edge.square() for edge in edges)], dim=1)
        network = self.get_submodule("network")
        weight = next(network.parameters())
        ratios: Tensor = network(state.to(weight.dtype)).squeeze(1).sigmoid()
        return ratios.to(student.dtype)

    @torch.no_grad()
    def observe(self, teacher: Logits, labels: Labels) -> None:
        """Update the running class means with a batch: a step of the decay for every class in it."""
        means = self.get_buffer("class_means")
        p = log_probs(teacher.to(means.dtype)).exp()
        sums = torch.zeros_like(means).index_add_(0, labels, p)
        counts = torch.bincount(labels, minlength=len(means)).to(means.dtype)
        seen = counts > 0
        fresh = sums[seen] / counts[seen, None]
        means[seen] = _AVERAGE_DECAY * means[seen] + (1 - _AVERAGE_DECAY) * fresh

    def learn_from(self, gradients: Iterable[Tensor]) -> None:
        """One step of the network's own optimiser; gradients in the order of ``parameters()``."""
        optimizer = self._optimizer()
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()

    def joint_parameters(self) -> Iterator[nn.Parameter]:
        """None: the network has its own update."""
        return iter(())

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's state, for checkpoints."""
        return self._optimizer().state_dict() if self._modules else {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        if state:
            self._optimizer().load_state_dict(state)

    def _build(self, classes: int) -> None:
        # Drawn from its own generator: the global one belongs to the student.
        generator = torch.Generator().manual_seed(0)
        layers = nn.Linear(_PARTS * classes, _HIDDEN, device="meta"), nn.Linear(_HIDDEN, 1, device="meta")
        network = nn.Sequential(layers[0], nn.ReLU(), layers[1]).to_empty(device="cpu")
        with torch.no_grad():
            bound = (_PARTS * classes) ** -0.5
            for parameter in network[0].parameters():
                parameter.uniform_(-bound, bound, generator=generator)
            for parameter in network[2].parameters():
                parameter.zero_()
        self._modules["network"] = network
        self.register_buffer("class_means", torch.full((classes, classes), 1 / classes))

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.__dict__.get("_adam")
        if optimizer is None:
            optimizer = torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE)
            object.__setattr__(self, "_adam", optimizer)
        return optimizer
