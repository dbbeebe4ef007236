"""One experiment: an attack on a trained victim, measured."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.extraction.records import ExperimentRecord, VictimIdentity
from benchmarks.extraction.shadows import shadow_pairs
from benchmarks.extraction.specs import ExperimentSpec
from benchmarks.extraction.victims import TrainedVictim, VictimStore
from divqat_brevitas.data import dataset_info
from divqat_brevitas.extraction import Predictor, softmax
from divqat_brevitas.extraction.arrays import Images, Responses, to_float
from divqat_brevitas.extraction.attack_spec import (
    AttackOutcome,
    QuerySet,
    draw_queries,
    needs_shadow,
    run_attack,
)
from divqat_brevitas.extraction.defences import AtCost, cost_of
from divqat_brevitas.extraction.defences.base import check_perturbed
from divqat_brevitas.extraction.defences.owner import split_fallback
from divqat_brevitas.extraction.evaluation.metrics import labels_of
from divqat_brevitas.files import sha256_text
from fpga_flow.pipeline.rundir import versions

_ANSWER_CALIBRATION = 1000
_COST_IMAGES = 1000


def run_experiment(
    spec: ExperimentSpec, store: VictimStore, clones: Path | None = None
) -> ExperimentRecord:
    """Run an experiment; its victim is trained now if it is not there.

    Args:
        spec: the experiment.
        store: of victims.
        clones: folder of clones trained before; None trains this experiment's clone anew.

    Raises:
        InputError: a name or images that are not there.
        CheckFailedError: the victim lost more accuracy than its guard allows, or training
            diverged.
        OutOfTimeError: the victim's training was stopped.

    Example:
        >>> from benchmarks.extraction.plan import plan
        >>> store = VictimStore(Path("runs/extraction"))
        >>> run_experiment(plan("mini")[0], store).clone_accuracy  # doctest: +SKIP
        0.88
    """
    victim = store.get(spec.victim)
    queries = draw_queries(spec.attack, spec.victim.dataset, store.root, fewer=True)
    how = spec.attack
    attacked = _attacked(spec, victim, store)
    defender = store.defender(spec.victim)
    found = defender.at_cost(how.defence, how.seed, attacked.predictor)
    # An attacker who knows the defence knows its strength, not the answers that it was found on.
    known = how if found is None else replace(how, defence=found.spec)
    shadow = shadow_pairs(spec.victim, known, queries, store) if needs_shadow(how.learner) else None
    defence = defender.defence(known.defence, seed=how.seed)
    outcome = run_attack(
        how, attacked.predictor, queries, defence=defence, shadow=shadow, remember=clones
    )
    return ExperimentRecord(
        name=spec.name,
        key=spec.key,
        dataset=spec.victim.dataset,
        model=spec.victim.model,
        bits="float32" if spec.victim.variant == "float" else spec.victim.bits,
        **_row(spec, outcome, attacked, store),
        victim_accuracy=attacked.test_accuracy,
        victim_validation_accuracy=victim.record["validation_accuracy"],
        defence_cost=_defence_cost(spec, attacked, store, queries, found),
        spec=asdict(spec),
        victim_record=VictimIdentity(
            **{name: victim.record[name] for name in ("name", "key", "sha256")}
        ),
        pool_images=0 if queries.images is None else len(queries.images),
        pool_sha256=_pool_hash(queries),
        seconds={
            "victim": round(outcome.victim_seconds, 2),
            "attacker": round(outcome.attacker_seconds, 2),
        },
        threads=torch.get_num_threads(),
        versions=versions(),
        history=_shortened(outcome.result.history),
        rounds=len(outcome.result.rounds),
        settings=outcome.result.settings,
    )


@dataclass(frozen=True)
class _Attacked:
    """What the attacker asks, and how it answers to test data: the evaluator's."""

    predictor: Predictor
    test_logits: npt.NDArray[np.float32]
    test_accuracy: float


def _attacked(spec: ExperimentSpec, victim: TrainedVictim, store: VictimStore) -> _Attacked:
    """The victim, behind the answer unit of its chip where it has one."""
    answer = spec.attack.answer
    if answer == "logits":
        return _Attacked(victim.predictor, victim.test_logits, victim.record["test_accuracy"])
    from fpga_flow.engines import load_engine

    calibration = to_float(store.data(spec.victim, "train")[0][:_ANSWER_CALIBRATION].numpy())
    file = victim.folder / "model.onnx"
    engine = load_engine(file, spec.victim.engine, answer, calibration)
    images, labels = store.data(spec.victim, "test")
    logits = engine.predict(to_float(images.numpy()))
    right = logits.argmax(axis=1) == labels.numpy()
    return _Attacked(engine, logits, float(right.mean()))


def _row(
    spec: ExperimentSpec, outcome: AttackOutcome, victim: _Attacked, store: VictimStore
) -> dict[str, Any]:
    """The attack row; the clone is tested here, and nowhere before."""
    images, labels = store.data(spec.victim, "test")
    classes = len(dataset_info(spec.victim.dataset).classes)
    guesses = labels_of(outcome.result.clone, images.numpy(), classes)
    row = outcome.row(
        victim=spec.label,
        victim_seed=spec.victim.seed,
        engine=spec.victim.engine,
        clone_accuracy=float((guesses == labels.numpy()).mean()),
        agreement=float((guesses == victim.test_logits.argmax(axis=1)).mean()),
    )
    return row.model_dump()


def _defence_cost(
    spec: ExperimentSpec,
    victim: _Attacked,
    store: VictimStore,
    queries: QuerySet,
    found: AtCost | None,
) -> dict[str, Any] | None:
    """How far the defence of the answers moves those to test images: what an honest user pays.

    Of one behind a gate: how far it moves what the gate lets through. Beside it, where it is more
    than a gate, the same on images of the attacker's pool; and where the defence names a cost, how
    strong it is for that and what that costs on the validation images it was found on.
    """
    how = spec.attack
    if how.defence == "none":
        return None
    defender = store.defender(spec.victim)
    made = how.defence if found is None else found.spec
    gate, rest = split_fallback(made)
    if rest == "none":
        gate, rest = "", gate

    def measured(images: Images, answers: Responses) -> dict[str, float]:
        if gate:
            first = defender.defence(gate)
            answers = check_perturbed(first, answers, first.perturb(images, answers))
        return asdict(cost_of(defender.defence(rest, seed=how.seed), images, answers))

    images = to_float(store.data(spec.victim, "test")[0].numpy())
    paid: dict[str, Any] = dict(measured(images, softmax(victim.test_logits)))
    if split_fallback(how.defence)[1] == "none":
        return paid
    paid["pool"] = None
    if queries.images is not None:
        asked = to_float(queries.images[:_COST_IMAGES])
        paid["pool"] = measured(asked, softmax(victim.predictor.predict(asked)))
    if found is not None:
        paid["found"] = asdict(found)
    return paid


def _pool_hash(queries: QuerySet) -> str:
    if queries.images is None:
        return sha256_text("")
    return hashlib.sha256(np.ascontiguousarray(queries.images).tobytes()).hexdigest()


def _shortened(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """First and last row of the clone's training: whether it converged."""
    return history if len(history) <= 2 else [history[0], history[-1]]
