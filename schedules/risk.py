"""How likely is a subscription lost to a payment within 30 and 90 days? A sum of weights by name, and why it is high.

The rules are a model like a fitted one: a base and weights in log-odds, each with what it rests on. A name tells a
fact: ``expires=before`` is a card that expires before the next charge, ``expires=before country=US`` how that differs
there, ``30 …`` how it differs within 30 days. What has no weight adds nothing. A chance is no verdict on a person: it
says what became of subscriptions that looked like this one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from schedules.learned import Model, sigmoid
from schedules.risk_reasons import why_none, words
from schedules.subscriber import HORIZONS, LONG, SHORT, Subscriber, values

MOST_REASONS, LEAST_REASON = 3, 0.1  # log-odds above the usual subscriber
TOGETHER = (
    ("expires", "country"),
    ("expires", "funding"),
    ("unpaid", "cause"),
    ("unpaid", "declines"),
    ("payday", "funding"),
    ("declines", "recovered"),
)


@dataclass(frozen=True, slots=True)
class Risk:
    """Two chances, the main reasons in plain words, and the version of the model; None: the rules."""

    chance_30: float
    chance_90: float
    reasons: tuple[str, ...]
    model: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One weight of the rules in log-odds, what it rests on, and whether that is inferred rather than published."""

    name: str
    weight: float
    basis: str
    inferred: bool = True


BASE = -3.9  # 8 % of renewals fail at first (GoCardless, Recurly), about a quarter to a third of those for good: 2 %
TABLE = (
    Rule("due=2", 0.7, "twice as many charges", inferred=False),
    Rule("due=3", 1.1, "three times as many", inferred=False),
    Rule("due=4", 1.5, "weekly prices: more, and they fail together"),
    Rule("30 unpaid=no", -2.5, "a case is given up after 28 days: within 30 only the next two days can lose it"),
    Rule("30 wait=0", 1.5, "as above: a charge today or tomorrow"),
    Rule("expires=passed", 2.4, "expired and not mended; the issuer may still approve"),
    Rule("expires=before", 2.4, "the updater mends 20 to 40 % outside the US (C), mails about half of the rest"),
    Rule("expires=before country=US", -0.6, "there it mends 60 to 75 % (Churn Buster)", inferred=False),
    Rule("expires=soon", 1.2, "as before, with another month to be mended in"),
    Rule("unpaid=0", 3.8, "a third of failures is never paid: competent programmes recover 65 to 71 %", inferred=False),
    Rule("unpaid=1", 4.2, "what is open after 4 days"),
    Rule("unpaid=2", 4.7, "after a week; nine of ten recoveries come within 10 days (Recurly)", inferred=False),
    Rule("unpaid=3", 5.4, "after two weeks"),
    Rule("unpaid=4", 6.0, "after three weeks"),
    Rule("unpaid=unknown", 4.5, "the provider says past due, and we have no case of it"),
    Rule("cause=credential", 0.5, "only the customer can help"),
    Rule("cause=technical", -1.0, "it passes by itself"),
    Rule("method=missing", 4.5, "nothing can be charged"),
    Rule("method=sepa_debit", -0.9, "2.9 % of debits fail against 7.9 % of cards (GoCardless)", inferred=False),
    Rule("method=bacs_debit", -0.9, "as above", inferred=False),
    Rule("method=us_bank_account", -0.9, "as above", inferred=False),
    Rule("funding=debit", 0.4, "half of the failures on two fifths of the cards (Recurly)", inferred=False),
    Rule("funding=prepaid", 0.9, "nobody fills it up for us"),
    Rule("declines=1", 0.6, "who failed once fails more often"),
    Rule("declines=2", 1.0, "as above"),
    Rule("declines=3", 1.4, "as above"),
    Rule("recovered=none", 0.3, "and was not won back then"),
    Rule("paid=2", 0.3, "a month without a payment"),
    Rule("paid=3", 0.5, "two months without"),
    Rule("tenure=0", 0.3, "recovery follows loyalty (Churn Buster)", inferred=False),
    Rule("tenure=4", -0.3, "as above", inferred=False),
    Rule("amount=high", 0.2, "a larger sum lacks more often"),
    Rule("payday=5 funding=debit", 0.2, "lack of funds grows with the days since payday (Adyen, UK)", inferred=False),
    Rule("payday=6 funding=debit", 0.2, "as above", inferred=False),
    Rule("payday=7 funding=debit", 0.2, "as above", inferred=False),
    Rule("other=yes", -0.8, "another valid method may take over"),
    Rule("mandate=inactive", 4.0, "a debit without a mandate is returned"),
)
RULES = Model("rules", BASE, {rule.name: rule.weight for rule in TABLE})


def terms(seen: Subscriber, days: int) -> Iterator[str]:
    """Yield the names of all weights that add up to the chance within 30 or 90 days."""
    told = values(seen, days)
    names = [f"{group}={value}" for group, value in told.items() if value is not None]
    names += [f"{one}={told[one]} {two}={told[two]}" for one, two in TOGETHER if told[one] and told[two]]
    names += [f"signal={kind}" for kind in sorted(seen.signals)]
    yield from names
    if days == SHORT:
        yield f"{SHORT}"
        yield from (f"{SHORT} {name}" for name in names)


def chance(model: Model, seen: Subscriber, days: int) -> float:
    """Return how likely a payment loses it within 30 or 90 days; zero when nothing can."""
    return sigmoid(model.base + model.sum(terms(seen, days))) if seen.at_risk(days) else 0.0


def score(seen: Subscriber, model: Model = RULES, usual: Mapping[str, float] | None = None) -> Risk:
    """Return the chances, and why they are higher than those of the ``usual`` subscriber (of ``usual_parts``)."""
    version = None if model is RULES else model.version
    if not seen.at_risk(LONG):
        return Risk(0.0, 0.0, (why_none(seen),), version)
    short, long = (chance(model, seen, days) for days in HORIZONS)
    return Risk(short, max(short, long), tuple(_reasons(seen, _parts(model, seen), usual or {})), version)


def usual_parts(model: Model, population: Iterable[Subscriber]) -> dict[str, float]:
    """Return what each group of facts adds to the log-odds, on average over those that a payment can lose."""
    sums: dict[str, float] = defaultdict(float)
    count = 0
    for seen in population:
        if seen.at_risk(LONG):
            count += 1
            for group, part in _parts(model, seen).items():
                sums[group] += part
    return {group: total / count for group, total in sums.items()}


def _parts(model: Model, seen: Subscriber) -> dict[str, float]:
    """Return what each group of facts adds to the log-odds of the longer horizon."""
    found: dict[str, float] = defaultdict(float)
    for name in terms(seen, LONG):
        found[name.partition("=")[0]] += model.weights.get(name, 0.0)
    return found


def _reasons(seen: Subscriber, parts: Mapping[str, float], usual: Mapping[str, float]) -> Iterator[str]:
    above = {group: part - usual.get(group, 0.0) for group, part in parts.items()}
    told = ((group, words(seen, group)) for group in sorted(above, key=lambda each: (-above[each], each)))
    main = [words for group, words in told if words and above[group] >= LEAST_REASON]
    yield from main[:MOST_REASONS]
