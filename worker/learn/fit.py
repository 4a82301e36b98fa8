"""How are weights found? Logistic regression, whose penalty draws every weight to zero unless the data pull it away.

That is the pooling: the weight of an hour for one kind of card in one country is a difference from the hour for that
kind, which is a difference from the hour for all. Seldom seen, it stays near zero, and the whole speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from schedules.learned import Model
from worker.learn.samples import Sample

PENALTY = 0.1  # inverse strength; this and the next line are those of the best held-out likelihood on our own world
LEVELS = (1.0, 0.5, 0.2)  # how freely a weight moves: of all cards, of one kind, of one kind in one country
LEAST = 0.005  # a weight below it moves no chance by as much as a quarter of a percent
LEAST_SAMPLES = 200


class NothingToLearn(ValueError):
    """There is not enough to learn from, or nothing to learn with; the message says what is missing."""


def fit(samples: Sequence[Sample], version: str) -> Model:
    """Return the model that explains the samples best; raise ``NothingToLearn`` below 200 of them or of one outcome."""
    passed = [each.passed for each in samples]
    if len(samples) < LEAST_SAMPLES or len(set(passed)) == 1:
        msg = f"{len(samples)} charges, {sum(passed)} of them approved: at least {LEAST_SAMPLES} with both are needed"
        raise NothingToLearn(msg)
    return weigh([each.terms for each in samples], passed, version)


def weigh(terms: Iterable[Iterable[str]], came: Sequence[bool], version: str) -> Model:
    """Return the weights of these names that explain best what came; raise ``NothingToLearn`` without the library."""
    try:
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:  # an extra: workers score without it
        msg = "learning needs scikit-learn: pip install 'dunning[learn]'"
        raise NothingToLearn(msg) from None
    names = DictVectorizer()
    seen = names.fit_transform([{name: _freedom(name) for name in each} for each in terms])
    found = LogisticRegression(C=PENALTY, max_iter=1000).fit(seen, came)
    told = zip(names.get_feature_names_out(), found.coef_[0], strict=True)
    weights = {name: round(float(weight) * _freedom(name), 3) for name, weight in told}
    weights = {name: weight for name, weight in weights.items() if abs(weight) >= LEAST}
    return Model(version, round(float(found.intercept_[0]), 3), weights)


def _freedom(name: str) -> float:
    return LEVELS[name.count(" ")]


def version_at(now: datetime, charges: int) -> str:
    """Return the name of a model: when it was made (UTC), and of how many charges."""
    return f"{now:%Y%m%dT%H%M}-{charges}"
