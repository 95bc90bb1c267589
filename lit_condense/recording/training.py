"""Train one expert step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_condense.data.real_images import RealImages
from lit_condense.engine.first_order import FirstOrderLoss
from lit_condense.engine.quantities import isolation
from lit_condense.errors import NonFiniteError
from lit_condense.evaluation.protocols import Recipe
from lit_condense.evaluation.training import batches_of, test_accuracy, training_batch
from lit_condense.functional.gradients import trainable_parameters
from lit_condense.recording.writer import Recording
from lit_condense.rng import RandomKey

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Slot:
    """A network in which experts are trained, one after the other: what was compiled for it stays valid.

    Args:
        network: On the device of the images, in training mode.
        loss: Its loss.
        optimizer: Makes the optimizer of an expert.
        recipe: Passes, batches and augmentation.
        real: What experts are trained on.
        test: What they are tested on.
        draws: Whether its layers draw from the global generators, which then are this step's own.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: FirstOrderLoss,
        optimizer: OptimizerFactory,
        recipe: Recipe,
        real: RealImages,
        test: RealImages,
        draws: bool = False,
    ) -> None:
        self.network = network
        self._loss, self._make_optimizer, self._recipe, self._real, self._test = loss, optimizer, recipe, real, test
        self._parameters = list(trainable_parameters(network).values())
        self._batches = batches_of(real, recipe)
        self._draws = draws
        self._scores: dict[str, list[float]] = {}

    def take(self, index: int, key: RandomKey, start: nn.Module, recording: Recording) -> None:
        """Begin an expert, or go on with it after the last epoch that is recorded.

        Args:
            index: Which expert, for messages.
            key: Names it: every shuffle and augmentation is drawn from it.
            start: A network with its initial weights.
            recording: Its file.
        """
        self.index, self._key, self._recording = index, key, recording
        self.network.load_state_dict(start.state_dict())
        self._optimizer = self._make_optimizer(self._parameters)
        self._step, self._scores = 0, {"train_loss": [], "train_accuracy": []}
        self._epoch: list[Tensor] = []
        state = recording.state()
        if state is None:
            recording.begin(flat(self._parameters))
            return
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scores, self._step = state["scores"], state["epoch"] * self._batches

    @property
    def done(self) -> bool:
        """Whether the expert has had its last step."""
        return self._step == self._recipe.passes * self._batches

    def step(self) -> Tensor:
        """Take one step of the expert; return the mean loss and the accuracy of its batch, before the step, ``(2,)``.

        Raises:
            NonFiniteError: The loss became NaN or infinite in this epoch.
        """
        num_classes = self._real.num_classes
        images, targets = training_batch(self._real, self._recipe, self._step, num_classes, self._key)
        with isolation(self._key.fold("layers", self._step) if self._draws else None):
            logits = self._descend(images, targets)
        right = (logits.argmax(1) == targets).float().mean()
        found = torch.stack([F.cross_entropy(logits, targets), right])
        self._epoch.append(found)
        self._step += 1
        if self._step % self._batches == 0:
            self._end_epoch(self._step // self._batches)
        return found

    def _descend(self, images: Tensor, targets: Tensor) -> Tensor:
        """Let the optimizer look at the batch as often as it wants; return the logits that it saw first."""
        seen: list[Tensor] = []

        def closure() -> Tensor:
            kept = [buffer.clone() for buffer in self.network.buffers()] if seen else []
            logits, slopes = self._loss.logits_and_gradients(images, targets)
            for parameter, slope in zip(self._parameters, slopes, strict=True):
                parameter.grad = slope
            for buffer, before in zip(self.network.buffers(), kept, strict=False):
                buffer.copy_(before)  # a batch counts once in running averages
            seen.append(logits)
            return F.cross_entropy(logits, targets)

        self._optimizer.step(closure)  # type: ignore[arg-type]
        return seen[0]

    def _end_epoch(self, epoch: int) -> None:
        loss, accuracy = torch.stack(self._epoch).mean(0).tolist()
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"The loss of expert {self.index} became {loss} in epoch {epoch}; the epochs before it are recorded. "
                "Lower the learning rate of model.optimizer."
            )
        self._epoch = []
        self._scores["train_loss"].append(round(loss, 5))
        self._scores["train_accuracy"].append(round(accuracy, 5))
        self._recording.add(epoch, flat(self._parameters))
        if self.done:
            self._recording.finish({**self._scores, "test_accuracy": round(self._tested(), 5)})
            return
        state: dict[str, Any] = {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}
        self._recording.keep(epoch, {**state, "scores": self._scores})

    def _tested(self) -> float:
        accuracy = test_accuracy(self.network, self._test)
        self.network.train()
        return accuracy


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """Return weights as one vector ``(P,)``, in their order."""
    return torch.cat([parameter.detach().flatten() for parameter in parameters])
