"""Which instants pay? A model is fitted to logged charges, judged against the running policy, and promoted or not."""

from worker.learn.fit import LEAST_SAMPLES, NothingToLearn, fit, version_at, weigh
from worker.learn.judge import LEAST_MATCHED, Estimate, Verdict, judge
from worker.learn.logged import logged
from worker.learn.samples import Sample, chosen, from_play

__all__ = [
    "LEAST_MATCHED",
    "LEAST_SAMPLES",
    "Estimate",
    "NothingToLearn",
    "Sample",
    "Verdict",
    "chosen",
    "fit",
    "from_play",
    "judge",
    "logged",
    "version_at",
    "weigh",
]
