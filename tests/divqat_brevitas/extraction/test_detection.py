"""The tripwire: its counter, its bounds, and who gets past it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.detection.trials import (
    Album,
    Asker,
    album,
    choose_tripwire,
    false_alarm_rate,
    honest_rate,
    honest_users,
    median_alarm,
    padded,
    simulate,
    trial,
    upper_rate,
)
from divqat_brevitas.extraction.detection.tripwire import POLICIES, Tripwire, design_tripwire

RATES = [(0.02, 0.4, 1e-4), (0.15, 0.5, 1e-4), (0.006, 0.56, 1e-6), (0.3, 0.9, 1e-2)]


@st.composite
def tripwires(draw):
    alarm_at = draw(st.integers(1, 60))
    return Tripwire(
        add=draw(st.integers(1, 12)),
        subtract=draw(st.integers(1, 12)),
        alarm_at=alarm_at,
        start=draw(st.integers(0, alarm_at - 1)),
    )


@given(tripwires(), st.lists(st.booleans(), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_many_users_at_once_are_the_definition_query_by_query(tripwire, bits):
    states = tripwire.states(bits)
    first = next((n for n, state in enumerate(states, start=1) if state.alarm), None)

    assert tripwire.alarm_after(np.array(bits)) == first
    both = np.array([bits, [not bit for bit in bits]])
    assert tripwire.alarms_after(both)[0] == (first or 0)
    assert all(0 <= state.counter <= tripwire.alarm_at for state in states)


@pytest.mark.parametrize(("p0", "p1", "alpha"), RATES)
def test_the_chance_of_a_false_alarm_stays_below_its_bound(p0, p1, alpha):
    tripwire = design_tripwire(p0, p1, alpha)
    for queries in (100, 10_000, 1_000_000):
        exact = tripwire.alarm_probability(p0, queries)
        assert exact <= tripwire.false_alarm_bound(p0, queries) <= alpha
        # Users who are rejected less raise fewer alarms.
        assert tripwire.alarm_probability(p0 / 2, queries) <= exact


@pytest.mark.parametrize(("p0", "p1", "alpha"), RATES)
def test_the_exponent_solves_its_equation(p0, p1, alpha):
    tripwire = design_tripwire(p0, p1, alpha)
    r = tripwire.exponent(p0)

    left = p0 * math.exp(r * tripwire.add) + (1 - p0) * math.exp(-r * tripwire.subtract)
    assert r > 0
    assert left == pytest.approx(1, abs=1e-9)  # the root is found to 1e-12
    assert tripwire.exponent(p1) == 0


def test_simulated_users_agree_with_the_exact_chance():
    tripwire = design_tripwire(0.15, 0.5, 0.1)
    users, queries = 20_000, 60
    bits = np.arange(20) < 3  # 0.15
    exact = tripwire.alarm_probability(0.15, queries)

    share = false_alarm_rate(tripwire, Asker((bits,)), users, queries)
    # Five standard deviations of a binomial share.
    assert abs(share - exact) < 5 * math.sqrt(exact * (1 - exact) / users)


def test_attackers_are_noticed_soon_and_honest_users_hardly_ever():
    """The rates of a piloted reject output: 0.6 % of own images, 56 % of photographs."""
    tripwire = design_tripwire(0.02, 0.4, 1e-4)
    own, photographs = np.arange(1000) < 6, np.arange(100) < 56

    for share, most in ((0.0, 12), (0.5, 60)):
        attacker = Asker((own, photographs), (share, 1 - share))
        row = trial(tripwire, attacker, victim="v", pool="p", share=share, attackers=2000)
        assert row.detected == 1
        assert row.alarm_after_median is not None
        assert row.alarm_after_median <= most
    assert tripwire.alarm_probability(own.mean(), 1_000_000) < 1e-4


def test_trust_is_earned_and_a_reset_gives_nothing():
    tripwire = design_tripwire(0.02, 0.4, 1e-4, policy="label-only")
    states = tripwire.states([False] * tripwire.start)

    assert not any(tripwire.full(state) for state in states[:-1])
    assert tripwire.full(states[-1])
    # An attacker who resets before each alarm never sees a whole response.
    safe = [True] * tripwire.unnoticed()
    assert tripwire.alarm_after(np.array(safe)) is None
    assert tripwire.alarm_after(np.array([*safe, True])) == len(safe) + 1
    assert not any(tripwire.full(state) for state in tripwire.states(safe))


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_policy_shows(policy):
    tripwire = Tripwire(add=3, subtract=1, alarm_at=6, start=1, policy=policy)
    trusted, alarmed = tripwire.states([False]), tripwire.states([False, True, True, False])
    shown = [tripwire.full(tripwire.reset), tripwire.full(trusted[-1]), tripwire.full(alarmed[-1])]

    assert shown == ([True] * 3 if policy == "report" else [False, True, False])
    assert tripwire.locked(alarmed[-1]) is (policy == "lock")  # it stays after an alarm
    assert not tripwire.locked(trusted[-1])


def test_padding_costs_what_the_weights_say():
    tripwire = design_tripwire(0.02, 0.4, 1e-4)
    rng = np.random.default_rng(0)
    pool, accepted = rng.random(2000) < 0.56, np.zeros(1, bool)

    asked, alarm = padded(tripwire, pool, accepted)
    expected = len(pool) * (1 + tripwire.padding(pool.mean()))
    assert alarm is None
    # What the counter has above its start, or below it, at the end.
    assert abs(asked - expected) <= tripwire.alarm_at + tripwire.add


def test_an_attacker_who_knows_other_numbers_is_noticed():
    """Padding tuned to one tripwire says nothing about another one."""
    known, changed = design_tripwire(0.02, 0.4, 1e-4), design_tripwire(0.006, 0.2, 1e-4)
    state, bits = known.reset, []
    for rejected in np.random.default_rng(0).random(500) < 0.56:
        while state.counter + known.add >= known.alarm_at:
            bits.append(False)
            state = known.count(state, False)
        bits.append(bool(rejected))
        state = known.count(state, bits[-1])

    assert known.alarm_after(np.array(bits)) is None
    assert changed.alarm_after(np.array(bits)) is not None


def test_users_who_repeat_few_images_are_no_independent_users():
    """A rejected image that is asked again and again is what the bound does not cover."""
    tripwire = design_tripwire(0.02, 0.4, 1e-4)
    own = np.arange(1000) < 6
    few = album(own, images=10, users=5000, seed=0)

    alarms = simulate(tripwire, few, 5000, 300)
    assert (alarms > 0).mean() > 1e-3
    assert not alarms[~few.rejected.any(axis=1)].any()
    everything = Album(np.zeros((3, 4), np.bool_))
    assert not simulate(tripwire, everything, 3, 100).any()


def test_honest_rates_are_of_the_worst_class():
    labels = np.repeat([0, 1, 2], 200)
    rejected = np.zeros(600, np.bool_)
    rejected[:20] = True  # a tenth of class 0

    assert 0.1 < honest_rate(rejected, labels) < 0.2
    assert honest_rate(rejected, labels) == upper_rate(rejected[:200])
    askers = honest_users(rejected, labels)
    assert askers["one class: 0"].rate == 0.1
    assert askers["two classes: 0 and 1"].rate == pytest.approx(0.05)
    assert askers["all classes"].rate == pytest.approx(20 / 600)


def test_a_tripwire_covers_users_of_one_class_or_there_is_none():
    labels = np.arange(5000) % 10
    shared = labels == 8  # a decoy that shares a class rejects it
    assert choose_tripwire(shared, labels) is None
    assert choose_tripwire(np.ones(5000, np.bool_), labels, one_class=False) is None
    _, about = choose_tripwire(shared, labels, one_class=False)
    assert about["p0_of"] == "all classes"

    output = np.arange(5000) % 100 == 3  # a tenth of one class
    tripwire, about = choose_tripwire(output, labels, alpha=1e-4)
    assert about["p0"] == upper_rate(output[labels == 3])
    worst = honest_users(output, labels)["one class: 3"].rate
    assert tripwire.alarm_probability(worst, 1_000_000) <= 1e-4
    with pytest.raises(InputError, match="policy"):
        choose_tripwire(shared, labels, policy="shout")


def test_the_median_counts_those_who_were_never_noticed():
    assert median_alarm(np.array([3, 0, 5])) == 5
    assert median_alarm(np.array([3, 0, 0])) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: design_tripwire(0.4, 0.2, 1e-4), "must be above p0"),
        (lambda: design_tripwire(0.0, 0.2, 1e-4), "p0 must be above 0"),
        (lambda: design_tripwire(0.1, 0.2, 1e-4, policy="shout"), "unknown policy"),
        (lambda: design_tripwire(0.1, 0.2, 1e-4, lifetime=0), "lifetime"),
        (lambda: Tripwire(add=0, subtract=1, alarm_at=3), "add=0"),
        (lambda: Tripwire(add=1, subtract=1, alarm_at=3, start=3), "below alarm_at"),
        (lambda: Tripwire(add=1, subtract=1, alarm_at=3).alarm_after(np.ones(3)), "truth values"),
        (lambda: Asker((np.zeros(0, np.bool_),)), "at least one"),
        (lambda: Asker((np.ones(2, np.bool_),), (0.5,)), "add up to 1"),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
