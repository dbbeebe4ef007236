"""What answer codes mean: fixed-point scores, thresholds, ties, and what a host makes of them."""

import json
from dataclasses import asdict
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.defences.truncation import LabelOnlyFallback
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.misdirection import misdirection_table
from fpga_flow.lowering.answer import (
    MASKED,
    AnswerUnit,
    ScoreRule,
    make_answer,
    parse_answer,
    score_rule,
)

CLASSES = 6
FLOATS = st.floats(1e-3, 2.0)
BIASES = st.floats(-5.0, 5.0)
SUMS = np.random.default_rng(0).integers(-2000, 2000, (200, CLASSES))
SCALE = np.random.default_rng(1).uniform(0.01, 0.02, CLASSES)
BIAS = np.random.default_rng(2).uniform(-3, 3, CLASSES)
ALL = ["top1", "topk:1", "topk:3", "rounded:1", "rounded:4", "posterior:1", "posterior:3"]
ALL += ["gated:0", "gated:5:2", "reject:abstain", "reject:4", "reject:keyed", "reject:keyed:2"]


def unit_of(name, scale=SCALE, bias=BIAS, sums=SUMS):
    return make_answer(name, list(scale), list(bias), sums)


@settings(max_examples=60)
@given(
    st.lists(FLOATS, min_size=CLASSES, max_size=CLASSES),
    st.lists(BIASES, min_size=CLASSES, max_size=CLASSES),
    st.integers(0, 2**32 - 1),
)
def test_the_highest_score_is_the_highest_logit_but_for_rounding(scale, bias, seed):
    rule = score_rule(scale, bias, CLASSES)
    sums = np.random.default_rng(seed).integers(-2000, 2000, (50, CLASSES))
    logits = sums * np.array(scale) + np.array(bias)
    # 17 bits of the largest scale; half a unit a scale and a bias.
    unit = max(scale) * 2.0**-16
    slack = (np.abs(sums).max(axis=1) + 1) * unit
    chosen = logits[np.arange(50), rule.labels(sums)]
    assert np.all(chosen >= logits.max(axis=1) - slack)
    assert rule.scale_bits <= 18


def test_equal_scales_and_biases_compare_the_sums_themselves():
    rule = score_rule([0.25], [3.0], 4)
    assert rule == ScoreRule((1, 1, 1, 1), (0, 0, 0, 0), unit=0.25, origin=3.0)
    assert rule.labels(np.array([[3, 5, 5, 1]])).tolist() == [1]


def test_rounding_is_of_the_logits_to_the_nearest_level_halves_up():
    """One scale for all classes: the codes are those of exact rational arithmetic."""
    sums = np.arange(-700, 700).reshape(-1, 2)
    unit = unit_of("rounded:3", [0.3, 0.3], [0.7, 0.7], sums[::7])
    low, high = sums[::7].min(), sums[::7].max()
    step = Fraction(int(high - low), 7)
    exact = [
        [min(7, max(0, (Fraction(int(n - low)) / step + Fraction(1, 2)).__floor__())) for n in row]
        for row in sums
    ]
    assert unit.codes(sums).tolist() == exact
    assert unit.low == low * 0.3 + 0.7
    decoded = unit.logits(unit.codes(sums))
    inside = (sums >= low) & (sums <= high)
    logits = sums * 0.3 + 0.7
    assert np.all(np.abs(decoded - logits)[inside] <= unit.step / 2 * (1 + 1e-6))


def test_a_score_on_a_threshold_passes_it():
    unit = AnswerUnit("rounded:2", ScoreRule((1, 2), (0, 1)), (-3, 4, 5))
    assert unit.codes(np.array([[4, -2], [3, 1], [5, 2], [-4, -3]])).tolist() == [
        [2, 1],
        [1, 1],
        [3, 3],
        [0, 0],
    ]


def test_top1_is_np_argmax_of_the_scores_and_one_hot_after_a_softmax():
    unit = unit_of("top1", [0.5] * 4, [0.0] * 4)
    sums = np.array([[1, 7, 7, 2], [3, 3, 3, 3], [-9, -9, -8, -8]])
    codes = unit.codes(sums)
    assert codes.tolist() == [[1], [0], [2]]
    logits = unit.logits(codes)
    assert (logits.dtype, logits.shape, logits[0].tolist()) == (
        np.float32,
        (3, 4),
        [MASKED, 0, MASKED, MASKED],
    )
    assert np.array_equal(softmax(logits), np.eye(4, dtype=np.float32)[codes[:, 0]])


def test_a_posterior_counts_from_the_highest_score():
    unit = AnswerUnit("posterior:2", ScoreRule((1,) * 4, (0,) * 4), (-25, -15, -5), -3.0, 1.0)
    codes = unit.codes(np.array([[100, 95, 94, 74], [-5, -30, -31, -5]]))
    assert codes.tolist() == [[3, 3, 2, 0], [3, 1, 0, 3]]
    assert unit.logits(codes)[0].tolist() == [0, 0, -1, -3]
    more = unit_of("posterior:4")
    assert np.array_equal(more.codes(SUMS).max(axis=1), np.full(len(SUMS), 15))
    # The middle image's spread fills the codes.
    fills = (more.codes(SUMS).min(axis=1) == 0).mean()
    assert 0.5 <= fills < 1


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_topk_keeps_the_k_highest_and_masks_the_others(k):
    sums = SUMS.copy()
    sums[:50] = sums[:50] // 1000  # ties
    unit = unit_of(f"topk:{k}", [0.01] * CLASSES, [0.0] * CLASSES)
    codes = unit.codes(sums)
    order = np.argsort(-sums, axis=1, kind="stable")
    kept = np.zeros(sums.shape, dtype=bool)
    np.put_along_axis(kept, order[:, :k], True, axis=1)
    assert np.array_equal(codes >= 128, kept)
    assert np.array_equal(codes[~kept], np.zeros((~kept).sum()))
    assert np.array_equal(codes.max(axis=1), np.full(len(sums), 255))
    assert codes.max() < 1 << unit.code_bits
    logits = unit.logits(codes)
    assert np.array_equal(logits == np.float32(MASKED), ~kept)
    assert np.array_equal(logits.argmax(axis=1), codes.argmax(axis=1))


def test_a_gate_gives_the_label_alone_where_the_decoy_is_in_play():
    unit = AnswerUnit("gated:1:2", ScoreRule((1,) * 4, (0,) * 4), (-25, -15, -5), -3.0, 1.0, 6)
    sums = np.array([[9, 3, 8, 9], [9, 2, 8, 9], [1, 7, 6, 5], [7, 7, 0, 7], [99, 0, 1, 2]])
    codes = unit.codes(sums)
    assert codes.tolist() == [[3, 0, 0, 0], [3, 2, 3, 3], [0, 3, 0, 0], [3, 0, 0, 0], [3, 0, 0, 0]]
    logits = unit.logits(codes)
    assert logits[1].tolist() == [0, -1, 0, 0]
    # Gated, or so sure that the others have no code: one answer cannot be told from the other.
    for row in (0, 2, 3, 4):
        assert np.array_equal(softmax(logits[[row]])[0], np.eye(4)[sums[row].argmax()])


@pytest.mark.parametrize("decoy", [0, 4])
def test_the_gate_is_the_posterior_elsewhere_and_covers_the_defence_of_that_name(decoy):
    unit, plain = unit_of(f"gated:{decoy}"), unit_of("posterior:8")
    assert unit_of(f"gated:{decoy}:8").thresholds == unit.thresholds == plain.thresholds
    sums = SUMS // 4
    scores = unit.rule.scores(sums)
    behind = scores.max(axis=1) - scores[:, decoy]
    in_play = behind <= unit.margin
    assert np.array_equal(unit.rejected(sums), in_play)
    assert 0.1 < in_play.mean() < 0.9
    codes = unit.codes(sums)
    assert np.array_equal(codes[~in_play], plain.codes(sums)[~in_play])
    assert np.array_equal(codes[in_play], 255 * np.eye(CLASSES)[scores.argmax(axis=1)[in_play]])
    # The margin is ln 20 of a logit, and not one score more.
    assert unit.margin * unit.rule.unit <= np.log(20) < (unit.margin + 1) * unit.rule.unit
    probabilities = softmax((sums * SCALE + BIAS).astype(np.float32))
    gate = LabelOnlyFallback(decoy)
    shown = gate.perturb(np.zeros((len(sums), 1, 8, 8), np.float32), probabilities)
    assert np.all(in_play[(shown != probabilities).any(axis=1)])
    for rows in (in_play, ~in_play):
        assert np.array_equal(unit.logits(codes).argmax(1)[rows], codes.argmax(1)[rows])


@pytest.mark.parametrize("name", ALL)
def test_a_unit_survives_json_and_codes_fit_their_bits(name):
    unit = unit_of(name)
    codes = unit.codes(SUMS)
    assert (codes.min() >= 0, codes.max() < 1 << unit.code_bits) == (True, True)
    assert AnswerUnit.from_record(json.loads(json.dumps(asdict(unit)))) == unit
    assert unit.codes(SUMS[:0]).shape == (0, codes.shape[1])
    assert unit.logits(unit.codes(SUMS[:0])).shape == (0, unit.classes)
    assert unit.rejected(SUMS[:0]).shape == (0,)


REJECTED = np.array([[5, 9, 8, 10], [5, 8, 9, 10], [9, 5, 5, 10], [7, 7, 7, 8]])
ACCEPTED = np.array([[5, 9, 8, 9], [9, 9, 9, 9], [0, 0, 1, -5]])


@pytest.mark.parametrize(("name", "shown"), [("reject:abstain", 3), ("reject:1", 1)])
def test_a_rejected_image_gets_the_constant_code_and_another_its_label(name, shown):
    unit = unit_of(name, [0.5] * 4, [0.0] * 4, None)
    assert unit.codes(REJECTED)[:, 0].tolist() == [shown] * 4
    assert unit.codes(ACCEPTED)[:, 0].tolist() == [1, 0, 2]
    assert unit.rejected(np.concatenate([REJECTED, ACCEPTED])).tolist() == [True] * 4 + [False] * 3
    assert unit.classes == 3 + (name == "reject:abstain")
    logits = unit.logits(unit.codes(REJECTED))
    assert np.array_equal(softmax(logits), np.eye(unit.classes, dtype=np.float32)[[shown] * 4])


def test_misdirection_is_a_keyed_derangement_of_the_label_by_the_runner_up():
    make = partial(make_answer, "reject:keyed", [0.5] * 4, [0.0] * 4)
    unit = make(key=b"one")
    table = misdirection_table(b"one", 3)
    assert unit.misdirection == tuple(table.ravel())
    pairs = [(1, 2), (2, 1), (0, 1), (0, 1)]  # the lowest of equals, as runner-up too
    assert unit.codes(REJECTED)[:, 0].tolist() == [table[pair] for pair in pairs]
    assert np.array_equal(unit.codes(ACCEPTED), make(key=b"two").codes(ACCEPTED))
    assert unit.classes == 3


def test_a_table_has_no_label_shows_all_classes_and_depends_on_the_key():
    table, other = misdirection_table(b"one", 10), misdirection_table(b"two", 10)
    assert np.array_equal(np.sort(table, axis=0), np.tile(np.arange(10)[:, None], 10))
    assert not (table == np.arange(10)[:, None]).any()
    assert np.array_equal(table, misdirection_table(b"one", 10))
    # Nine of ten entries of an unrelated derangement differ; the standard error is 3 points.
    assert (table != other).mean() > 0.75
    marked = misdirection_table(b"one", 10, constant=4)
    changed = marked != table
    assert (marked[changed] == 4).all()
    assert 1 <= changed.sum() <= 30  # an eighth of 90 pairs
    assert not (marked == np.arange(10)[:, None]).any()


def test_logits_that_are_all_equal_still_make_a_unit():
    unit = unit_of("rounded:2", [1.0, 1.0], [0.0, 0.0], np.array([[5, 5]]))
    assert list(unit.thresholds) == sorted(unit.thresholds)
    assert unit.codes(np.array([[5, 5]])).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rounde:3", "unknown answer 'rounde': did you mean 'rounded'"),
        ("top1:1", "without a number"),
        ("rounded", "'rounded:BITS' with BITS from 1 to 8"),
        ("rounded:9", "BITS from 1 to 8"),
        ("posterior:x", "BITS from 1 to 8"),
        ("topk:0", "K from 1"),
        ("gated", "'gated:C' or 'gated:C:BITS'"),
        ("gated:1:9", "BITS from 1 to 8"),
        ("gated:-1", "C the index"),
        ("reject", "'reject:abstain', 'reject:C'"),
        ("reject:keyed:", "'reject:keyed:C'"),
        ("reject:-1", "C the index"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(InputError, match=message):
        parse_answer(name)


def test_refusals():
    with pytest.raises(InputError, match="more classes than the 6"):
        unit_of("topk:7")
    with pytest.raises(InputError, match="classes 0 to 5 only"):
        unit_of("gated:6")
    for name in ("reject:5", "reject:keyed:5"):  # the last output is no class
        with pytest.raises(InputError, match="classes 0 to 4 only"):
            unit_of(name)
    with pytest.raises(InputError, match="this one has 2 outputs"):
        unit_of("reject:keyed", [1.0] * 2, [0.0] * 2)
    with pytest.raises(InputError, match="needs calibration images"):
        unit_of("rounded:3", sums=None)
    with pytest.raises(InputError, match="not of this version"):
        AnswerUnit.from_record({"name": "top1"})
