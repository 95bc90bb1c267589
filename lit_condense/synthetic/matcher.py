"""Match one image update on each of its networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

from lit_condense.engine import RunningEngine
from lit_condense.inner.network import BatchNormStatistics
from lit_condense.matching.base import Loss, Progress
from lit_condense.synthetic.gather import Gatherer
from lit_condense.synthetic.inner_training import InnerTraining
from lit_condense.synthetic.update import UpdateResult, match, summed


class Matcher:
    """Gives this rank's part of an update.

    Args:
        engine: Bound to the module that all networks are put into.
        training: Puts networks into it.
        losses: All of the run.
        gatherer: Gives the gatherer of an update.
        batch_norm: What batch norm is frozen on.
    """

    def __init__(
        self,
        engine: RunningEngine,
        training: InnerTraining,
        *,
        losses: Sequence[Loss],
        gatherer: Callable[[int], Gatherer],
        batch_norm: BatchNormStatistics,
    ) -> None:
        self.engine = engine
        self.losses = losses
        self._training = training
        self._inner, self._key, self._share = training.inner, training.key, training.share
        self._gatherer = gatherer
        self._batch_norm: BatchNormStatistics = batch_norm

    def __call__(self, networks: Sequence[Progress]) -> UpdateResult:
        """Return this rank's part of gradients and losses, added up over the networks.

        Args:
            networks: Where the run and each network stand.
        """
        return summed([self.on(one) for one in networks], [self.weights(one) for one in networks])

    def alone(self, networks: Sequence[Progress], tag: str) -> UpdateResult:
        """Return what the loss of a tag gives without the others, and leave running averages as they were."""
        return summed([self.on(one, only=tag, again=True) for one in networks])

    def of_one(self, networks: Sequence[Progress], tag: str) -> UpdateResult:
        """Return the gradient of one loss, computed among the others, and leave running averages as they were."""
        with self._key.fold("share", networks[0].update).isolated():
            return summed([self.on(one, share_of=tag, again=True) for one in networks])

    def weights(self, progress: Progress) -> dict[str, float]:
        """Return the weight of each loss by tag."""
        return {loss.tag: loss.weight_at(progress) for loss in self.losses}

    def on(
        self, progress: Progress, only: str | None = None, share_of: str | None = None, again: bool = False
    ) -> UpdateResult:
        """Return this rank's part on one network.

        Args:
            progress: Where the run and the network stand.
            only: Leave out all losses but that of this tag.
            share_of: Compute all as ever, but return the gradient of the loss of this tag.
            again: Put back running averages after it.
        """
        losses = [loss for loss in self.losses if loss.weight_at(progress) != 0 or loss.watched_at(progress)]
        losses = [loss for loss in losses if only in (None, loss.tag)]
        gatherer = self._gatherer(progress.update)
        self._training.use(progress)
        key = self._key.fold("statistics", progress.update)
        with (
            self._inner.put_back_afterwards() if again else nullcontext(),
            self._inner.frozen_batch_norm(self._batch_norm, key),
        ):
            return match(self.engine, gatherer, self._share, losses, progress, share_of)
