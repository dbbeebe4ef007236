"""The tripwire on the benchmark's victims: queries to the alarm, false alarms, and evasions.

A kept victim with a decoy class rejects an image where its label is that class. The rejected bits
of validation, test and pool images come from the integer engine; users and attackers are simulated
with them (:mod:`divqat_brevitas.extraction.detection.trials`). Only validation images choose the
tripwire; honest users ask test images. Writes ``detection.json``, from which ``summary.json`` takes
its rows.
"""

from collections.abc import Callable, Iterator, Sequence
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
from divqat_brevitas.extraction.arrays import substream, to_float
from divqat_brevitas.extraction.detection.trials import (
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
_AVOIDING_BUDGET = 1000
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
            decoy = scenario.decoy_class(variant)
            victim = Rejecter(spec, store.get(spec).predictor, decoy)
            rows += victim_rows(victim, scenario.pools, store, users, log)
    write_json(folder / DETECTION, {"schema": 1, "rows": rows})
    return folder / DETECTION


def victim_rows(
    victim: Rejecter,
    pools: Sequence[str],
    store: VictimStore,
    users: int = USERS,
    log: Callable[[str], None] = print,
) -> list[Row]:
    """All rows of one victim."""
    dataset = victim.spec.dataset
    validation, kinds = load(dataset, "val", store.root)
    tripwire, about = choose_tripwire(victim.rejected(validation), kinds)
    about |= {"dataset": dataset, "victim_seed": victim.spec.seed, "budget": BUDGET}
    log(f"{victim.spec.name}: {about}")
    images, labels = load(dataset, "test", store.root)
    honest = victim.rejected(images)
    own_pixels = load(dataset, "pool", store.root)[0][:POOL_IMAGES]
    own = victim.rejected(own_pixels)
    rows = list(_honest_rows(victim, tripwire, honest, labels, users))
    for pool in pools:
        if pool == "in":
            continue
        try:
            drawn = query_pool(pool, dataset, POOL_IMAGES, 0, store.root).images
        except InputError as e:
            log(f"left out: {e}")
            continue
        bits = victim.rejected(drawn)
        rows += mixed_rows(tripwire, victim.spec.label, pool, bits, own, BUDGET, _ATTACKERS)
        rows += _evasions(victim, tripwire, pool, bits, own, own_pixels)
        if pool == pools[0]:
            rows += _avoiding(victim, tripwire, pool, drawn, bits)
    honest_row = {name: rows[0][name] for name in ("false_alarm_rate", "users")}
    return [about | row | ({} if row["users"] else honest_row) for row in rows]


def _honest_rows(
    victim: Rejecter, tripwire: Tripwire, honest: Rejected, labels: npt.NDArray[Any], users: int
) -> Iterator[Row]:
    """False alarms of class mixes, and of users who repeat a few images; no attackers."""
    askers: dict[str, Asker | Album] = dict(honest_users(honest, labels))
    askers[f"{_ALBUM} images, repeated"] = album(honest, _ALBUM, users, seed=0)
    for name, asker in askers.items():
        yield {
            "victim": victim.spec.label,
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
    victim: Rejecter,
    tripwire: Tripwire,
    pool: str,
    bits: Rejected,
    own: Rejected,
    own_pixels: npt.NDArray[np.uint8],
) -> Iterator[Row]:
    """Rows of attackers who evade, and what an image of the pool costs them in queries."""
    plain = trial(tripwire, Asker((bits,)), victim=victim.spec.label, pool=pool).model_dump()
    trusted = trial(tripwire, Asker((bits,)), victim=victim.spec.label, pool=pool, start=0)
    yield trusted.model_dump() | {"evasion": "trusted first", "queries_per_image": 1.0}
    accepted = own_pixels[~own]
    rng = substream(0, "slight changes")
    noise = rng.integers(-2, 3, (10, 100, *accepted.shape[1:]))
    changed = np.clip(accepted[:10, None].astype(np.int64) + noise, 0, 255).astype(np.uint8)
    changed_bits = victim.rejected(changed.reshape(-1, *accepted.shape[1:]))
    for evasion, pad in (
        ("padded with own images", own),
        ("padded with one image, repeated", np.zeros(1, np.bool_)),
        ("padded with slight changes of one image", changed_bits),
    ):
        asked, alarm = padded(tripwire, bits, pad)
        cost = None if alarm else asked / len(bits)
        share = (asked - len(bits)) / asked if cost else 0.0
        yield plain | {
            "share_in_distribution": share,
            "alarm_after_median": alarm,
            "detected": float(alarm is not None),
            "evasion": evasion,
            "queries_per_image": cost,
            "attackers": 1,
        }
    lot = queries_per_reset(tripwire, Asker((bits,)))
    for evasion in ("power cycles", "several devices or tokens"):
        yield plain | {
            "alarm_after_median": None,
            "detected": 0.0,
            "evasion": evasion,
            "queries_per_image": 1.0,
            "resets_for_budget": int(np.ceil(BUDGET / lot)) if lot else None,
            "queries_per_reset": lot,
        }


def _avoiding(
    victim: Rejecter,
    tripwire: Tripwire,
    pool: str,
    drawn: npt.NDArray[np.uint8],
    bits: Rejected,
) -> Iterator[Row]:
    """Rows of the attacker who learns what is rejected: as it learns, and with what it learnt."""
    attack = RejectionAvoider(
        PlainLearner(surrogate="mlp", epochs=1),
        reject_class=victim.output_of(len(dataset_info(victim.spec.dataset).classes) + 1),
        initial=0.1,
    )
    target = Victim(victim.predictor, oracle="top1", budget=_AVOIDING_BUDGET)
    result = attack.run(target, drawn)
    asked = bits[result.indices]
    alarm = tripwire.alarm_after(asked)
    last = asked[result.rounds[-2]["queries"] :]
    learnt = trial(tripwire, Asker((last,)), victim=victim.spec.label, pool=pool).model_dump()
    rates = [round_["rejected"] for round_ in result.rounds]
    yield learnt | {
        "alarm_after_median": alarm,
        "detected": float(alarm is not None),
        "evasion": "avoiding, learns on the way",
        "queries_per_image": 1.0,
        "attackers": 1,
        "pool_rate": float(asked.mean()),
        "rates": rates,
    }
    yield learnt | {
        "evasion": f"avoiding, learnt elsewhere with {_AVOIDING_BUDGET} queries",
        "queries_per_image": 1.0,
        "padding": tripwire.padding(float(last.mean())),
        "pool_rate": float(last.mean()),
    }
