"""Losses that were tried beside the presets: what each costs the victim and the attacker.

    python -m benchmarks.loss_search.search [--only NAME ...] [--seed 0] [--out FOLDER]

Each variant is one victim on Fashion-MNIST (w4a4, integer engine) and three KnockoffNets attackers
of 5,000 queries. Clones are measured on *validation* images: this is a search, and test data stay
unseen. A variant that is in variants.json is not run again. What helps belongs into
`divqat_brevitas.quant.loss`; the rest stays here, with its numbers.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.extraction.scenarios import COMPACT
from benchmarks.extraction.victims import VictimStore, recipe_of
from divqat_brevitas import DivQATLoss, freeze_reference
from divqat_brevitas.extraction import accuracy
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.attack_spec import draw_queries, run_attack
from divqat_brevitas.files import read_json, write_json, write_text
from divqat_brevitas.quant.loss import divergence_per_image
from divqat_brevitas.training import load_weights, save_weights, train
from divqat_brevitas.training.loop import Criterion, PlainLoss
from fpga_flow.engines import load_engine
from fpga_flow.export import export_qonnx
from fpga_flow.pipeline.rundir import versions

SCENARIO = COMPACT[0]
ATTACKERS = (("fonts", "soft"), ("fonts", "argmax"), ("in", "soft"))
PLAIN = "plain QAT"
SEARCHED = "the network's weights"
SCALES = "its scales alone"


class Rest(DivQATLoss):
    """Divergence among the classes but the label: the margin over them is left to the labels."""

    def forward(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """Cross-entropy, less the divergence of the other classes."""
        with torch.no_grad():
            reference = self.reference(inputs)
        others = F.one_hot(labels, logits.shape[1]) == 0
        p, q = (z[others].view(len(z), -1) for z in (reference, logits))
        s = self.settings
        each = divergence_per_image(p, q, s.order, s.temperature).clamp(max=s.cap)
        self.terms = {"divergence": each.mean().detach()}
        loss: Tensor = F.cross_entropy(logits, labels)
        return loss - self.weight * s.temperature**2 * each.mean()


class Codes(DivQATLoss):
    """Divergence of the layers' activations, as one less their cosine, instead of the outputs'."""

    def __init__(self, reference: nn.Module, network: nn.Module, weight: float) -> None:
        super().__init__(reference, "nasty", weight)
        self.kept: dict[str, list[Tensor]] = {"reference": [], "network": []}
        for name, whole in (("reference", reference), ("network", network)):
            for module in whole.modules():
                if type(module).__name__ in ("ReLU", "QuantReLU"):
                    module.register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _inputs: object, output: Tensor) -> None:
            if name == "network" and not module.training:
                return  # validation
            self.kept[name].append(torch.as_tensor(getattr(output, "value", output)).flatten(1))

        return hook

    def forward(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """Cross-entropy, less the distance of the activations."""
        ours = self.kept["network"]
        self.kept = {"reference": [], "network": []}
        with torch.no_grad():
            self.reference(inputs)
        theirs = self.kept["reference"]
        self.kept = {"reference": [], "network": []}
        apart = [
            (1 - F.cosine_similarity(a.float(), b.float())).mean()
            for a, b in zip(ours, theirs, strict=True)
        ]
        divergence = torch.stack(apart).mean()
        self.terms = {"divergence": divergence.detach()}
        loss: Tensor = F.cross_entropy(logits, labels)
        return loss - self.weight * divergence


class Outside(DivQATLoss):
    """Divergence from the reference on synthetic outliers, where the decoy has one class."""

    def forward(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """Cross-entropy, less the outliers' divergence."""
        count = len(labels)
        with torch.no_grad():
            reference = self.reference(inputs[count:])
        s = self.settings
        each = divergence_per_image(reference, logits[count:], s.order, s.temperature)
        term = s.temperature**2 * each.clamp(max=s.cap).mean()
        self.terms = {"divergence": term.detach()}
        loss: Tensor = F.cross_entropy(logits[:count], labels)
        return loss - self.ood_weight * term


class Agreeing(DivQATLoss):
    """The decoy outside, and agreement with the reference on the victim's own kind of images."""

    def forward(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """The decoy's loss, and the distance from the reference."""
        total = super().forward(logits, labels, inputs)
        count = len(labels)
        with torch.no_grad():
            reference = self.reference(inputs[:count])
        apart = divergence_per_image(reference, logits[:count], "forward", 2.0).mean()
        return total + 4.0 * apart


Make = Callable[[nn.Module, nn.Module], Criterion]
VARIANTS: dict[str, tuple[str, Make]] = {
    PLAIN: (SEARCHED, lambda reference, network: PlainLoss()),
    "nasty": (SEARCHED, lambda r, n: DivQATLoss(r, "nasty")),
    "rest 0.04": (SEARCHED, lambda r, n: Rest(r, "nasty")),
    "rest 0.16": (SEARCHED, lambda r, n: Rest(r, "nasty", 0.16)),
    "codes 0.3": (SEARCHED, lambda r, n: Codes(r, n, 0.3)),
    "codes 3": (SEARCHED, lambda r, n: Codes(r, n, 3.0)),
    "nasty, scales": (SCALES, lambda r, n: DivQATLoss(r, "nasty")),
    "decoy, scales": (SCALES, lambda r, n: DivQATLoss(r, "decoy")),
    "outside 0.04": (SEARCHED, lambda r, n: Outside(r, "decoy", ood_weight=0.04)),
    "decoy": (SEARCHED, lambda r, n: DivQATLoss(r, "decoy")),
    "decoy bag": (SEARCHED, lambda r, n: DivQATLoss(r, "decoy", decoy_class=8)),
    "decoy bag 1": (SEARCHED, lambda r, n: DivQATLoss(r, "decoy", decoy_class=8, ood_weight=1.0)),
    "decoy 1, agreeing": (SEARCHED, lambda r, n: Agreeing(r, "decoy", ood_weight=1.0)),
}


def trained(name: str, seed: int, work: Path, store: VictimStore) -> nn.Module:
    """One variant's network, in evaluation mode; plain QAT once, for those that start from it."""
    kept = work / f"plain-{seed}.safetensors"
    carrier, make = VARIANTS[name]
    spec = SCENARIO.experiment("qat").seeded(seed, 0).victim
    reference = store.network(spec.reference)
    recipe = recipe_of(spec)
    network = recipe.calibrated(reference)
    if name == PLAIN and kept.is_file():
        load_weights(kept, network)
        return network.eval()
    if carrier == SCALES:  # from plain QAT, with every weight as it is
        network.load_state_dict(trained(PLAIN, seed, work, store).state_dict())
        for parameter, value in network.named_parameters():
            value.requires_grad_(parameter.endswith("scaling_impl.value"))
    criterion = make(freeze_reference(reference), network)
    train(
        network,
        criterion,
        train=recipe.data("train"),
        val=recipe.data("val"),
        settings=recipe.settings,
        name=name,
    )
    if name == PLAIN:
        save_weights(kept, network, {"variant": name})
    return network.eval()


def measure(name: str, seed: int, work: Path) -> dict[str, object]:
    """Train one victim, rob it three times."""
    store = VictimStore(work, kept=Path("benchmarks/extraction"))
    spec = SCENARIO.experiment("qat").seeded(seed, 0).victim
    network = trained(name, seed, work, store)
    val = store.data(spec, "val")
    model = work / f"{name.replace(' ', '-').replace(',', '')}-{seed}.onnx"
    export_qonnx(network, model, to_float(val[0][:64].numpy()))
    engine = load_engine(model, "integer")
    images, labels = to_float(val[0].numpy()), val[1].numpy()
    clones = {}
    for pool, learner in ATTACKERS:
        attack = replace(SCENARIO.experiment("qat", pool=pool, learner=learner).attack, seed=seed)
        outcome = run_attack(attack, engine, draw_queries(attack, spec.dataset, None))
        clones[f"{pool}, {learner}"] = accuracy(outcome.result.clone, images, labels)
    return {
        "name": name,
        "carrier": VARIANTS[name][0],
        "seed": seed,
        "engine": "integer",
        "split": "validation",
        "queries": attack.budget,
        "victim_accuracy": accuracy(engine, images, labels),
        "clone_accuracy": clones,
        "versions": versions(),
    }


def table(found: list[dict[str, object]]) -> str:
    """The measured variants as a page."""
    columns = [f"{pool}, {learner}" for pool, learner in ATTACKERS]
    lines = [
        "# Losses that were tried",
        "",
        "Made by `benchmarks/loss_search/search.py` from `variants.json`: Fashion-MNIST, "
        "fashion-cnn w4a4, integer engine, KnockoffNets with 5,000 queries, accuracies on "
        "validation images in per cent. One seed: differences below about 3 points mean nothing.",
        "",
        f"| Loss | Changes | Seed | Victim | {' | '.join(f'Clone: {c}' for c in columns)} |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for row in found:
        clones = row["clone_accuracy"]
        assert isinstance(clones, dict)
        values = [row["victim_accuracy"], *(clones[column] for column in columns)]
        shown = " | ".join(f"{100 * float(str(value)):.1f}" for value in values)
        lines.append(f"| {row['name']} | {row['carrier']} | {row['seed']} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/loss_search"))
    parser.add_argument("--work", type=Path, default=Path("runs/extraction"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.out / "variants.json"
    records = {(row["name"], row["seed"]): row for row in read_json(file)} if file.is_file() else {}
    order = list(VARIANTS)
    for name in options.only:
        if (name, options.seed) not in records:
            records[name, options.seed] = measure(name, options.seed, options.work)
            rows = sorted(records.values(), key=lambda row: (order.index(row["name"]), row["seed"]))
            write_json(file, rows)
            print(f"{name}: {records[name, options.seed]['clone_accuracy']}", flush=True)
    write_text(options.out / "README.md", table(read_json(file)))


if __name__ == "__main__":
    main()
