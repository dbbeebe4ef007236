"""The tripwire on the benchmark's victims: queries to the alarm, false alarms, and evasions.

A kept victim with a decoy class rejects an image where its label is that class. The rejected bits
of validation, test and pool images come from the integer engine; users and attackers are simulated
with them (:mod:`divqat_brevitas.extraction.detection.trials`). Only validation images choose the
tripwire; honest users ask test images. Writes ``detection.json``, from which ``summary.json`` takes
its rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.extraction.results import DETECTION
from benchmarks.extraction.scenarios import Scenario
from benchmarks.extraction.specs import VictimSpec
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.data import dataset_info, load, query_pool
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, Predictor, RejectionAvoider, Victim
from divqat_brevitas.extraction.arrays import Labels, substream, to_float
from divqat_brevitas.extraction.detection.trials import (
    NO_TRIPWIRE,
    Album,
    Asker,
    album,
    choose_tripwire,
    false_alarm_rate,
    honest_users,
    mixed_rows,
    padded,
    queries_per_reset,
    trial,
)
from divqat_brevitas.extraction.detection.tripwire import Rejected, Tripwire
from divqat_brevitas.files import write_json

POOL_IMAGES, USERS, QUERIES, BUDGET = 5000, 1_000_000, 200, 5000
_ALBUM = 20
_CHANGED = 10  # images of which slight changes are asked
AVOIDING_BUDGET = 1000
_ATTACKERS = 10_000
Row = dict[str, Any]


@dataclass(frozen=True)
class Rejecter:
    """A victim with a reject class.

    Attributes:
        spec: the victim.
        predictor: computes its responses.
        reject_class: the class that means rejected; None: the last output.
    """

    spec: VictimSpec
    predictor: Predictor
    reject_class: int | None

    def rejected(self, pixels: npt.NDArray[np.uint8]) -> Rejected:
        """Whether each image is rejected, bool (N,), of uint8 images (N, C, H, W)."""
        logits = self.predictor.predict(to_float(pixels))
        bits: Rejected = logits.argmax(axis=1) == self.output_of(logits.shape[1])
        return bits

    def output_of(self, outputs: int) -> int:
        """Index of the output that means rejected, among so many."""
        return outputs - 1 if self.reject_class is None else self.reject_class


def measure_detection(
    scenarios: Sequence[Scenario],
    store: VictimStore,
    folder: Path,
    *,
    users: int = USERS,
    log: Callable[[str], None] = print,
) -> Path:
    """Measure the tripwire on every victim that has a decoy class; returns the file.

    Pools whose images are not on this machine are left out, and named in the log.
    """
    rows: list[Row] = []
    for scenario in scenarios:
        for variant in scenario.gated:
            spec = scenario.experiment(variant).victim
            victim = Rejecter(spec, store.get(spec).predictor, scenario.decoy_class(variant))
            log(f"{spec.name}: asking the victim")
            bits = rejections(victim, scenario.pools, store, log)
            about = {"dataset": spec.dataset, "victim_seed": spec.seed}
            found = detection_rows(spec.label, bits, users, victim.reject_class is None)
            if not found:
                log(f"{spec.name}: {NO_TRIPWIRE}")
            rows += [about | row for row in found]
    write_json(folder / DETECTION, {"schema": 1, "rows": rows})
    return folder / DETECTION


@dataclass(frozen=True)
class Rejections:
    """What a victim rejects: all that the trials need of it. Bits are bool (N,).

    Attributes:
        validation: of validation images, with their classes.
        test: of test images, with their classes.
        own: of in-distribution images that an attacker may hold.
        changed: of slight changes of accepted ones of these.
        pools: of each query pool's images.
        avoiding: of the images that the avoiding attacker asks of the first pool, in order, and
            the number of these that it asked before its last round.
    """

    validation: tuple[Rejected, Labels]
    test: tuple[Rejected, Labels]
    own: Rejected
    changed: Rejected
    pools: Mapping[str, Rejected]
    avoiding: tuple[Rejected, int] | None = None


def rejections(
    victim: Rejecter, pools: Sequence[str], store: VictimStore, log: Callable[[str], None] = print
) -> Rejections:
    """Ask a victim everything."""
    dataset = victim.spec.dataset
    validation, test = (load(dataset, split, store.root) for split in ("val", "test"))
    pixels = load(dataset, "pool", store.root)[0][:POOL_IMAGES]
    own = victim.rejected(pixels)
    accepted = pixels[~own][:_CHANGED]
    noise = substream(0, "slight changes").integers(-2, 3, (100, *accepted.shape))
    changed = np.clip(accepted.astype(np.int64) + noise, 0, 255).astype(np.uint8)
    drawn: dict[str, npt.NDArray[np.uint8]] = {}
    for pool in pools:
        if pool == "in":
            continue
        try:
            drawn[pool] = query_pool(pool, dataset, POOL_IMAGES, 0, store.root).images
        except InputError as e:
            log(f"left out: {e}")
    bits = {pool: victim.rejected(images) for pool, images in drawn.items()}
    first = next(iter(drawn))
    return Rejections(
        validation=(victim.rejected(validation[0]), validation[1]),
        test=(victim.rejected(test[0]), test[1]),
        own=own,
        changed=victim.rejected(changed.reshape(-1, *accepted.shape[1:])),
        pools=bits,
        avoiding=avoiding(victim, drawn[first], bits[first]),
    )


def avoiding(
    victim: Rejecter, images: npt.NDArray[np.uint8], bits: Rejected
) -> tuple[Rejected, int]:
    """What the attacker who learns to avoid rejections meets; see :class:`Rejections`."""
    outputs = len(dataset_info(victim.spec.dataset).classes) + (victim.reject_class is None)
    attack = RejectionAvoider(
        PlainLearner(surrogate="mlp", epochs=1),
        reject_class=victim.output_of(outputs),
        initial=0.1,
    )
    target = Victim(victim.predictor, oracle="top1", budget=AVOIDING_BUDGET)
    result = attack.run(target, images)
    return bits[result.indices], int(result.rounds[-2]["queries"])


def detection_rows(
    victim: str, bits: Rejections, users: int = USERS, one_class: bool = True
) -> list[Row]:
    """All rows of one victim; none where it has no tripwire (see :func:`choose_tripwire`)."""
    chosen = choose_tripwire(*bits.validation, one_class=one_class)
    if chosen is None:
        return []
    tripwire, about = chosen
    about["budget"] = BUDGET
    rows = list(_honest_rows(victim, tripwire, *bits.test, users))
    honest = {name: rows[0][name] for name in ("false_alarm_rate", "users")}
    for pool, rejected in bits.pools.items():
        rows += mixed_rows(tripwire, victim, pool, rejected, bits.own, BUDGET, _ATTACKERS)
        rows += _evasions(victim, tripwire, pool, rejected, bits)
    if bits.avoiding is not None:
        rows += _avoiding_rows(victim, tripwire, next(iter(bits.pools)), *bits.avoiding)
    return [about | row | ({} if row["users"] else honest) for row in rows]


def _honest_rows(
    victim: str, tripwire: Tripwire, honest: Rejected, labels: Labels, users: int
) -> Iterator[Row]:
    """False alarms of class mixes, and of users who repeat a few images; no attackers."""
    askers: dict[str, Asker | Album] = dict(honest_users(honest, labels))
    askers[f"{_ALBUM} images, repeated"] = album(honest, _ALBUM, users, seed=0)
    for name, asker in askers.items():
        yield {
            "victim": victim,
            "policy": tripwire.policy,
            "pool": f"honest: {name}",
            "share_in_distribution": 1.0,
            "alarm_after_median": None,
            "detected": None,
            "false_alarm_rate": false_alarm_rate(tripwire, asker, users, QUERIES),
            "users": users,
            "queries": QUERIES,
            "pool_rate": asker.rate,
        }


def _evasions(
    victim: str, tripwire: Tripwire, pool: str, rejected: Rejected, bits: Rejections
) -> Iterator[Row]:
    """Rows of attackers who evade, and what an image of the pool costs them in queries."""
    asker, rate = Asker((rejected,)), float(rejected.mean())
    named: Row = {"victim": victim, "pool": pool, "attackers": _ATTACKERS}
    plain = {"pool_rate": rate, "queries_per_image": 1.0}
    trusted = trial(tripwire, asker, **named, start=0).model_dump()
    yield (
        plain
        | trusted
        | {
            "evasion": "trusted first",
            "queries_before": -(-tripwire.start // tripwire.subtract),
        }
    )
    unnoticed = plain | trusted | {"alarm_after_median": None, "detected": 0.0}
    for evasion, pad in (
        ("padded with own images", bits.own),
        ("padded with one image, repeated", np.zeros(1, np.bool_)),
        ("padded with slight changes of own images", bits.changed),
    ):
        asked, alarm = padded(tripwire, rejected, pad)
        cost = asked / len(rejected) if alarm is None else None
        yield unnoticed | {
            "share_in_distribution": 1 - len(rejected) / asked if cost else 0.0,
            "alarm_after_median": alarm,
            "detected": float(alarm is not None),
            "evasion": evasion,
            "queries_per_image": cost,
        }
    lot = queries_per_reset(tripwire, asker)
    resets = -(-BUDGET // lot) if lot else None
    for evasion in ("power cycles", "several devices or tokens"):
        yield unnoticed | {
            "evasion": evasion,
            "queries_per_reset": lot,
            "resets_for_budget": resets,
        }


def _avoiding_rows(
    victim: str, tripwire: Tripwire, pool: str, asked: Rejected, before: int
) -> Iterator[Row]:
    """Rows of the attacker who learns what is rejected: as it learns, and with what it learnt."""
    last = asked[before:]
    named: Row = {"victim": victim, "pool": pool, "attackers": _ATTACKERS}
    learnt = trial(tripwire, Asker((last,)), **named).model_dump()
    alarm = tripwire.alarm_after(asked)
    yield learnt | {
        "alarm_after_median": alarm,
        "detected": float(alarm is not None),
        "evasion": "avoiding, learns on the way",
        "queries_per_image": 1.0,
        "pool_rate": float(asked.mean()),
    }
    yield learnt | {
        "evasion": "avoiding, learnt elsewhere",
        "queries_before": len(asked),
        "queries_per_image": 1.0,
        "pool_rate": float(last.mean()),
    }
