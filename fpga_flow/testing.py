"""Assertions for a project's own tests: engines agree to the bit, extraction stays below a bound.

The pytest plug-in gives them as fixtures; without pytest they are plain functions.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    PlainLearner,
    Predictor,
    Victim,
    accuracy,
    make_attack,
)
from divqat_brevitas.extraction.arrays import check_labels, check_pool, to_float
from divqat_brevitas.extraction.predictor import as_predictor

Model = Path | str | Predictor | nn.Module | Victim


def assert_bit_exact(
    model: Model, engine: Path | str | Predictor | nn.Module = "qonnx", *, images: NDArray[Any]
) -> None:
    """Two ways to execute one network give the same bits.

    A QONNX file is executed by the integer engine and by ``engine``, and every integer
    accumulator that both know is compared, and the labels; logits are integers times a float
    scale, whose last bit is the engine's own. Anything else is compared with ``engine`` by what
    it answers, every bit; a victim by what its oracle shows, which costs queries.

    Args:
        model: a QONNX file; or a predictor, a torch module or a :class:`Victim` (such as
            ``RestVictim``) without a defence.
        engine: for a file, the other engine's name: "qonnx", "finn", "rtl". For anything else
            what it must equal: a QONNX file (executed in integers), a predictor or a module.
        images: uint8, or float32 in [0, 1], (N, C, H, W).

    Raises:
        AssertionError: with the first layer, image and integers that differ.
        InputError: bad images, an unknown engine, a victim with a defence.
        ToolMissingError: the engine is not installed; mark the test ``needs_finn``, ...

    Example:
        >>> assert_bit_exact("model.onnx", "qonnx", images=images[:4])
    """
    __tracebackhide__ = True
    asked = to_float(check_pool(images, "the images"))
    if isinstance(model, Path | str):
        if not isinstance(engine, str):
            raise InputError("a QONNX file is compared with an engine by name, such as 'qonnx'.")
        _assert_engines_agree(Path(model), engine, asked)
        return
    if isinstance(model, Victim):
        if model.defence != "none":
            raise InputError(
                f"this victim's answers pass the defence {model.defence!r}: compare the one "
                "behind it."
            )
        options: dict[str, Any] = dict(model.options)
        expected = Victim(_reference(engine), model.oracle, len(asked), **options)
        _assert_equal(model.query(asked), expected.query(asked), "the victim's answers")
        return
    found = as_predictor(model).predict(asked)
    _assert_equal(found, _reference(engine).predict(asked), "the predictions")


def assert_extraction_at_most(
    victim: Model,
    bound: float,
    *,
    images: NDArray[Any],
    labels: NDArray[Any],
    pool: Any,
    attack: str = "knockoff-random",
    budget: int = 1000,
    seeds: Sequence[int] = (0,),
    oracle: str = "soft",
    defence: str = "none",
    learner: PlainLearner | None = None,
) -> list[float]:
    """Assert that no clone of ``attack`` is more accurate than ``bound``, for all seeds.

    The bound is about this attacker only: a weak one (a small surrogate, few epochs, a pool unlike
    the data) keeps any bound. Check the bound against a victim that is known to be easy to copy.

    Args:
        victim: a QONNX file (attacked through the integer engine), a predictor or a torch module:
            each seed then attacks a new victim. Or a :class:`Victim` with its own oracle and
            defence; it must have ``budget`` queries left for every seed.
        bound: the largest clone accuracy allowed, a fraction of 1.
        images: of the test set, uint8 or float32 in [0, 1], (N, C, H, W).
        labels: of the test set, integers (N,).
        pool: the attacker's images, an array or anything with ``images``; for a data-free attack
            the (C, H, W) of an image.
        attack: a key of ``ATTACKS``.
        budget: number of queries for each seed.
        seeds: of the attack; everything random follows from them.
        oracle: what the victim shows.
        defence: what perturbs the responses.
        learner: trains the clone; None: ``PlainLearner()``.

    Returns:
        The clone accuracies, one a seed.

    Raises:
        AssertionError: a clone is more accurate; the message has all accuracies.
        InputError: unknown names, bad arrays, no seed, or a bound outside [0, 1].

    Example:
        >>> accuracies = assert_extraction_at_most(
        ...     "model.onnx", 0.9, images=images, labels=labels, pool=images, budget=40,
        ...     learner=PlainLearner(surrogate="mlp", epochs=1))
        >>> len(accuracies)
        1
    """
    __tracebackhide__ = True
    if not 0 <= bound <= 1:
        raise InputError(f"the bound is a fraction of 1, not {bound!r}.")
    if not seeds:
        raise InputError("no seed: give at least one, such as seeds=(0, 1, 2).")
    # Before hours of attacks, not after.
    check_labels(labels, len(check_pool(images, "the test images")), "the test labels")
    attacks = [make_attack(attack, learner or PlainLearner(), seed) for seed in seeds]
    if isinstance(victim, Victim):
        if victim.remaining < budget * len(seeds):
            raise InputError(
                f"the victim has {victim.remaining} queries left, but {len(seeds)} attacks of "
                f"{budget} need {budget * len(seeds)}."
            )
        targets = [victim] * len(seeds)
    else:
        model = _reference(victim)
        targets = [Victim(model, oracle, budget, defence) for _ in seeds]
    accuracies = [
        accuracy(one.run(target, pool, budget).clone, images, labels)
        for one, target in zip(attacks, targets, strict=True)
    ]
    if max(accuracies) > bound:
        listed = ", ".join(f"{a:.4f} (seed {s})" for a, s in zip(accuracies, seeds, strict=True))
        raise AssertionError(
            f"{attack} with {budget} queries made clones of accuracy {listed}, more than {bound}."
        )
    return accuracies


def _reference(model: Path | str | Predictor | nn.Module) -> Predictor:
    if isinstance(model, Path | str):
        from fpga_flow.engines import load_engine

        return load_engine(model)
    return as_predictor(model)


def _assert_engines_agree(path: Path, name: str, images: NDArray[np.float32]) -> None:
    __tracebackhide__ = True
    from fpga_flow.engines import load_engine

    ours, theirs = load_engine(path), load_engine(path, name)
    with ExitStack() as stack:
        if close := getattr(theirs, "close", None):
            stack.callback(close)
        found = theirs.accumulators(images)
        labels = theirs.predict(images).argmax(axis=1, keepdims=True)
    expected = ours.accumulators(images)
    # FINN and the hardware report only the last layer's.
    _assert_layers(found, expected, f"{path.name}: {name} and integer")
    own = ours.predict(images).argmax(axis=1, keepdims=True)
    _assert_equal(labels, own, f"{path.name}: the labels of {name} and integer")


def _assert_layers(
    found: Mapping[str, NDArray[np.int64]], expected: Mapping[str, NDArray[np.int64]], what: str
) -> None:
    __tracebackhide__ = True
    common = [name for name in expected if name in found]
    if not common:
        raise AssertionError(f"{what} have no layer in common: {list(found)}, {list(expected)}.")
    for name in common:
        a, b = found[name], expected[name]
        _assert_equal(a.reshape(len(a), -1), b.reshape(len(b), -1), f"{what} in layer {name}")


def _assert_equal(found: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    __tracebackhide__ = True
    if found.shape != expected.shape:
        raise AssertionError(f"{what} differ in shape: {found.shape}, not {expected.shape}.")
    differs = found != expected
    if not differs.any():
        return
    rows = np.flatnonzero(differs.any(axis=1))
    column = int(np.flatnonzero(differs[rows[0]])[0])
    raise AssertionError(
        f"{what} differ on {len(rows)} of {len(found)} images, first on image {rows[0]}: value "
        f"{column} is {found[rows[0], column]}, not {expected[rows[0], column]}."
    )
