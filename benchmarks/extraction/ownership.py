"""The ownership test on the benchmark's victims: clones, removal attempts, independent networks.

A kept victim responds with a fingerprint (:mod:`divqat_brevitas.extraction.ownership`) to an
attacker with in-distribution images. Its clones, changed clones and independent networks are asked
the triggers. Independent are the other kept victims of the data set, their float networks with
weights of fewer bits, and networks trained on halves of the attacker's images with true labels.
They meet many secrets, since only the secret is random under the null hypothesis. Writes
``ownership.json``, from which ``summary.json`` takes its rows; a row that is there is not measured
again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.extraction.results import OWNERSHIP, kept_victims
from benchmarks.extraction.scenarios import Scenario
from benchmarks.extraction.specs import VictimSpec
from benchmarks.extraction.victim_archive import spec_of
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.data import load
from divqat_brevitas.extraction import (
    Predictor,
    Victim,
    accuracy,
    build_surrogate,
    train_surrogate,
)
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.ownership import (
    Fingerprint,
    FingerprintedResponses,
    false_claims,
    fine_tuned,
    labels_of,
    ownership_test,
    pruned,
    requantized,
)
from divqat_brevitas.extraction.ownership.significance import labels_test
from divqat_brevitas.files import read_json, replacing, sha256_text, write_json

_EPOCHS = 20  # of clones, in float32
_OWN = 1000  # images that an attacker labels itself
BUDGET, SHARE, SECRETS, LEVEL = 5000, 0.005, 200, 1e-3
Row = dict[str, Any]
Pixels = npt.NDArray[np.uint8]


def measure_ownership(
    scenarios: Sequence[Scenario],
    store: VictimStore,
    folder: Path,
    *,
    log: Callable[[str], None] = print,
) -> Path:
    """Measure the rows that are missing, on plain QAT of each scenario; returns the file."""
    path = folder / OWNERSHIP
    rows: list[Row] = read_json(path)["rows"] if path.is_file() else []
    for scenario in scenarios:
        spec = scenario.experiment("qat").victim
        there = {row["suspect"] for row in rows if row["dataset"] == spec.dataset}
        for row in victim_rows(spec, scenario, store, folder, there):
            log(f"{spec.dataset}: {row}")
            rows.append({"dataset": spec.dataset, "victim_seed": spec.seed} | row)
            write_json(path, {"schema": 1, "rows": rows})
    return path


def victim_rows(
    spec: VictimSpec, scenario: Scenario, store: VictimStore, folder: Path, there: set[str]
) -> Iterator[Row]:
    """The rows of one victim that are missing."""
    victim = store.get(spec).predictor
    images, truth = load(spec.dataset, "pool", store.root)
    asked = np.ascontiguousarray(images[:BUDGET])
    classes = int(truth.max()) + 1
    fingerprint = Fingerprint(sha256_text(f"{spec.name} fingerprint 0"), classes, SHARE)
    test = load(spec.dataset, "test", store.root)

    def row(suspect: str, kind: str, model: Predictor | nn.Module, marking: Any) -> Row:
        result = ownership_test(fingerprint, marking.log.triggers(), model)
        return {
            "victim": spec.label,
            "suspect": suspect,
            "suspect_kind": kind,
            **vars(result),
            "suspect_accuracy": accuracy(model, to_float(test[0]), test[1]),
            "budget": len(asked),
        }

    names = {"top1": ["clone", *REMOVALS, SECOND], "soft": ["clone"]}
    for oracle, kinds in names.items():
        missing = {kind for kind in kinds if f"{oracle}: {kind}" not in there}
        if not missing:
            continue
        marking = FingerprintedResponses(fingerprint)
        responses = Victim(victim, oracle, len(asked), marking).query(to_float(asked))
        clone = _trained(scenario, store, asked, responses)
        if "clone" in missing:
            yield row(f"{oracle}: clone", "clone", clone, marking)
        own = images[BUDGET : BUDGET + _OWN], truth[BUDGET : BUDGET + _OWN]
        for what, change in REMOVALS.items():
            if what in missing:
                yield row(f"{oracle}: {what}", "removal", change(clone, own), marking)
        if SECOND in missing:
            others = np.ascontiguousarray(images[BUDGET : 2 * BUDGET])
            relabelled = np.eye(classes, dtype=np.float32)[labels_of(clone, others)]
            second = _trained(scenario, store, others, relabelled)
            yield row(f"{oracle}: {SECOND}", "removal", second, marking)
    if "independent networks" not in there:
        yield _independent(spec, store, folder, asked, truth[:BUDGET], labels_of(victim, asked))


REMOVALS: dict[str, Callable[[nn.Module, tuple[Any, Any]], nn.Module]] = {
    "clone, 30 % pruned": lambda clone, own: pruned(clone, 0.3),
    "clone, 50 % pruned": lambda clone, own: pruned(clone, 0.5),
    "clone, 4-bit weights": lambda clone, own: requantized(clone, 4),
    f"clone, fine-tuned on {_OWN} own labels": lambda clone, own: fine_tuned(clone, *own),
}
SECOND = "clone of the clone, other images"


def _independent(
    spec: VictimSpec,
    store: VictimStore,
    folder: Path,
    asked: Pixels,
    truth: npt.NDArray[np.int64],
    own: npt.NDArray[np.int64],
) -> Row:
    """False claims over networks and secrets; rate, null rate and p-value are the largest."""
    networks: list[npt.NDArray[np.int64]] = []
    for record in kept_victims(folder):
        other = spec_of(record)
        # Only what is kept as it is described: nothing is trained for this.
        if not record["kept"] or record["key"] != other.key:
            continue
        if other.dataset != spec.dataset or other == spec:
            continue
        got = store.get(other).predictor
        networks.append(labels_of(got, asked))
        module = getattr(got, "module", None)
        if isinstance(module, nn.Module):
            networks += [labels_of(requantized(module, bits), asked) for bits in (2, 3, 4, 8)]
    classes = int(truth.max()) + 1
    halves = np.random.default_rng(0).permutation(len(asked)).reshape(2, -1)
    targets = np.eye(classes, dtype=np.float32)[truth]
    for seed in range(20):
        for half in halves:
            network = build_surrogate("mlp", asked.shape[1:], classes, seed)
            train_surrogate(network, asked[half], targets[half], epochs=1 + seed % 4, seed=seed)
            networks += [labels_of(one, asked) for one in (network, requantized(network, 3))]
    results = []
    for number in range(SECRETS):
        secret = sha256_text(f"{spec.name} independent {number}")
        fingerprint = Fingerprint(secret, classes, SHARE)
        marked, labels = fingerprint.read(to_float(asked), own)
        at = np.flatnonzero(marked)
        results += [labels_test(own[at], labels[at], each[at], classes) for each in networks]
    p_values = [result.p_value for result in results]
    worst = min(results, key=lambda result: result.p_value)
    return {
        "victim": spec.label,
        "suspect": "independent networks",
        "suspect_kind": "independent",
        **vars(worst),
        "networks": len(networks),
        "secrets": SECRETS,
        "level": LEVEL,
        "false_claim_rate": false_claims(p_values, LEVEL),
        "budget": len(asked),
    }


def _trained(
    scenario: Scenario,
    store: VictimStore,
    images: Pixels,
    targets: npt.NDArray[np.float32],
) -> nn.Module:
    """A clone; its weights are kept in the work folder, so that a killed measurement continues."""
    name = scenario.attack.get("surrogate", "vgg-small")
    network = build_surrogate(name, images.shape[1:], targets.shape[1], 0)
    content = hashlib.sha256(images.tobytes() + targets.tobytes()).hexdigest()
    file = store.work / "clones" / f"{name}-{_EPOCHS}-{content[:16]}.safetensors"
    if file.is_file():
        network.load_state_dict(load_file(file))
        return network.eval()
    train_surrogate(network, images, targets, epochs=_EPOCHS, seed=0)
    with replacing(file) as temporary:
        save_file(network.state_dict(), temporary)
    return network
