"""Where the time of an update goes, by a clock that the parts of a run move."""

from __future__ import annotations

import pytest

from lit_condense.engine import Engine
from lit_condense.inner import TrainOnReal
from lit_condense.matching import GradientMatching
from lit_condense.runs import timing
from lit_condense.sampling import RandomSampling
from tests.helpers import fitted


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_the_seconds_of_a_part_add_up_and_a_part_that_never_ran_has_none(clock):
    watch = timing.Stopwatch("a", "b", "c")
    for part, seconds in (("a", 2.0), ("b", 5.0), ("a", 1.0)):
        clock.now += 100.0  # between two parts
        with watch.part(part):
            clock.now += seconds
    assert watch.seconds == {"a": 3.0, "b": 5.0, "c": 0.0}


@pytest.mark.filterwarnings("ignore:max_steps=4 is no multiple")
# the last update is the only one of its network, the last one, the first one
@pytest.mark.parametrize(("per_network", "updates", "inner"), [(1, 1, 7.0), (2, 4, 0.0), (3, 4, 77.0)])
def test_sampling_matching_and_inner_training_are_logged_apart(clock, per_network, updates, inner):
    class Slow(RandomSampling):
        def refresh(self, *args):
            clock.now += 1000.0

    class Loop(TrainOnReal):
        def begin(self, *args):
            clock.now += 7.0

        def advance(self, *args):
            clock.now += 70.0

    class Loss(GradientMatching):
        def loss(self, real, synthetic):
            clock.now += 0.5
            return super().loss(real, synthetic)

    loop = Loop(updates=per_network, early=1)
    one_by_one = Engine(classes_per_block=1)
    module = fitted(Loss(), inner=loop, sampling=Slow(4), engine=one_by_one, max_steps=updates)
    logged = module.trainer.callback_metrics
    assert logged["time/sampling"] == 1000.0
    assert logged["time/match"] == 2.5  # five classes
    assert logged["time/inner"] == inner
