"""The benchmark's victims: trained, exported and measured once, then found again by their key.

Writes below its work folder ``victims/<name>-<key>/``: ``weights.safetensors``; ``model.onnx`` of
a quantized victim, which is what is attacked; ``test.npy``, its logits on test data, for the
evaluator alone; and, last, ``victim.json``. A folder without ``victim.json`` is
unfinished, and its training continues from the last epoch. A victim kept with the results
(:mod:`benchmarks.extraction.victim_archive`) is not trained again; of a quantized one the weights
are not there then.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.extraction.specs import VictimSpec
from benchmarks.extraction.victim_archive import MODEL, WEIGHTS, attacked_file, restore
from divqat_brevitas.data import dataset_info
from divqat_brevitas.data.drawings import noise
from divqat_brevitas.errors import CheckFailedError, DivQATError
from divqat_brevitas.extraction import Predictor, TorchPredictor, utility_row
from divqat_brevitas.extraction.arrays import Images, to_float
from divqat_brevitas.extraction.defences.owner import Defender
from divqat_brevitas.extraction.evaluation.utility import (
    AdversarialLogits,
    adversarial_examples,
    transfer_row,
)
from divqat_brevitas.files import read_json, replacing, sha256_file, write_json
from divqat_brevitas.short_repr import ShortRepr
from divqat_brevitas.training import (
    TrainSettings,
    VictimRecipe,
    load_weights,
    save_weights,
    train_victim,
)
from divqat_brevitas.training.loop import Data
from fpga_flow.pipeline.rundir import versions
from fpga_flow.pipeline.tasks import locked

_PARITY_IMAGES = 64
_OTHER_SEED = 500  # far from the victims' own and from the attackers' shadows
_UTILITY_IMAGES = 1000
_PGD_EPS, _PGD_STEPS = 8 / 255, 10
Logits = npt.NDArray[np.float32]


class OutOfTimeError(DivQATError):
    """The time given is over; training continues from its last epoch next time."""

    exit_code = 0


@dataclass(frozen=True)
class TrainedVictim(ShortRepr):
    """A victim that is there.

    Attributes:
        spec: what it is.
        folder: where it is.
        record: its ``victim.json``.
        predictor: what answers for it.
    """

    spec: VictimSpec
    folder: Path
    record: dict[str, Any]
    predictor: Predictor

    @property
    def test_logits(self) -> Logits:
        """Its logits on test data, float32 (N, classes): the evaluator's, never an attacker's."""
        logits: Logits = np.load(self.folder / "test.npy", allow_pickle=False)
        return logits


class VictimStore:
    """Trains victims, or finds them.

    Args:
        work: folder of everything that is not a result.
        root: data folder; None: the cache.
        log: takes a line of progress.
        out_of_time: asked after every epoch; once True, training stops with OutOfTimeError.
        kept: folder of results with the victims that are kept; None: each is trained.
    """

    def __init__(
        self,
        work: Path,
        root: Path | None = None,
        log: Callable[[str], None] = lambda line: None,
        out_of_time: Callable[[], bool] = lambda: False,
        kept: Path | None = None,
    ) -> None:
        self.work = Path(work)
        self.kept = kept
        self.root = root
        self.log = log
        self.out_of_time = out_of_time
        self._loaded: tuple[str, TrainedVictim] | None = None
        self._defenders: dict[str, Defender] = {}

    def folder(self, spec: VictimSpec) -> Path:
        """Where a victim is or will be."""
        return self.work / "victims" / f"{spec.name}-{spec.key[:12]}"

    def ready(self, spec: VictimSpec) -> bool:
        """Whether it is trained."""
        return (self.folder(spec) / "victim.json").is_file()

    def get(self, spec: VictimSpec) -> TrainedVictim:
        """The victim, trained now if it is not there.

        Raises:
            GuardError: it lost more accuracy than its guard allows.
            OutOfTimeError: see the class.
            CheckFailedError: its files were changed, or it cannot be lowered to integers.
        """
        # The last one only: experiments come victim by victim, and an engine holds its weights.
        if self._loaded is None or self._loaded[0] != spec.key:
            self._loaded = spec.key, self._load(spec)
        return self._loaded[1]

    def network(self, spec: VictimSpec) -> nn.Module:
        """The trained network, in evaluation mode."""
        self._ensure(spec)
        network = recipe_of(spec, self.root).untrained()
        load_weights(self.folder(spec) / WEIGHTS, network)
        return network.eval()

    def defender(self, spec: VictimSpec) -> Defender:
        """Builds defences of the victim's responses, on the victim's training data."""
        if spec.key not in self._defenders:
            self._defenders[spec.key] = Defender(
                partial(self._training_data, spec),
                len(dataset_info(spec.dataset).classes),
                spec.seed,
                partial(self._other_networks, spec),
                # One for all variants: it does not look at the victim.
                self.work / "defences" / spec.reference.key[:12],
                lambda: self.data(spec, "val")[0].numpy(),
            )
        return self._defenders[spec.key]

    def _training_data(self, spec: VictimSpec) -> tuple[Any, Any]:
        images, labels = self.data(spec, "train")
        return images.numpy(), labels.numpy()

    def _other_networks(self, spec: VictimSpec) -> list[Predictor]:
        """A further member for an ensemble: plain QAT from other initial weights."""
        other = replace(spec.twin, seed=spec.seed + _OTHER_SEED)
        self._ensure(other)
        return [self._engine(other)]

    def data(self, spec: VictimSpec, split: str) -> Data:
        """One split in the shape the victim takes: uint8 (N, C, H, W) and int64 (N,)."""
        return recipe_of(spec, self.root).data(split)

    def shape(self, spec: VictimSpec) -> tuple[int, int, int]:
        """(C, H, W) of the images the victim takes."""
        return spec.shape or dataset_info(spec.dataset).shape

    def _load(self, spec: VictimSpec) -> TrainedVictim:
        self._ensure(spec)
        folder = self.folder(spec)
        record = read_json(folder / "victim.json")
        name = attacked_file(spec)
        if sha256_file(folder / name) != record["sha256"][name]:
            raise CheckFailedError(
                f"{folder / name} is not what was trained. Delete {folder} to train it again."
            )
        return TrainedVictim(spec, folder, record, self._predictor(spec))

    def _predictor(self, spec: VictimSpec) -> Predictor:
        """What computes its responses, from its files."""
        if spec.engine == "integer":
            return self._engine(spec)
        network = recipe_of(spec, self.root).untrained()
        load_weights(self.folder(spec) / WEIGHTS, network)
        return TorchPredictor(network.eval())

    def _engine(self, spec: VictimSpec) -> Predictor:
        from fpga_flow.engines import load_engine

        return load_engine(self.folder(spec) / MODEL, spec.engine)

    def _ensure(self, spec: VictimSpec) -> None:
        if self.ready(spec) or self._restored(spec):
            return
        for needed in spec.needs:
            self._ensure(needed)
        # Two experiments of one victim: the second waits, then finds it.
        with locked(self.work / "locks" / f"victim-{spec.key[:12]}", wait=True):
            if not self.ready(spec):
                self._make(spec)

    def _restored(self, spec: VictimSpec) -> bool:
        """Unpack a kept victim, if this one is kept."""
        if self.kept is None:
            return False
        with locked(self.work / "locks" / f"victim-{spec.key[:12]}", wait=True):
            if self.ready(spec):
                return True
            folder = self.folder(spec)
            record = restore(self.kept, spec, folder)
            if record is None:
                return False
            images, labels = self.data(spec, "test")
            logits = self._answers(spec, self._predictor(spec), to_float(images.numpy()))
            accuracy = float((logits.argmax(axis=1) == labels.numpy()).mean())
            if spec.engine == "integer" and accuracy != record["test_accuracy"]:
                raise CheckFailedError(
                    f"the kept victim {spec.name} has {accuracy:.2%} test accuracy here, and "
                    f"{record['test_accuracy']:.2%} on record: the engine or the data differ."
                )
            write_json(folder / "victim.json", record)
            return True

    def _make(self, spec: VictimSpec) -> None:
        start = time.perf_counter()
        folder = self.folder(spec)
        folder.mkdir(parents=True, exist_ok=True)
        self.log(f"victim {spec.name}: training")
        network, history = self._trained(spec, folder / "checkpoint")
        save_weights(folder / WEIGHTS, network, {"variant": spec.label})
        files = [WEIGHTS]
        about: dict[str, Any] = {}
        if spec.variant != "float":
            about = self._export(spec, network, folder / MODEL)
            files.append(MODEL)
        measured = self._measure(spec, network)
        record = {
            "name": spec.name,
            "key": spec.key,
            "spec": asdict(spec),
            "engine": spec.engine,
            "sha256": {name: sha256_file(folder / name) for name in files},
            "parameters": sum(p.numel() for p in network.parameters()),
            "validation_accuracy": history[-1]["val_accuracy"],
            **measured,
            **about,
            "history": history,
            "versions": versions(),
            "threads": torch.get_num_threads(),
            "seconds": round(time.perf_counter() - start, 1),
        }
        write_json(folder / "victim.json", record)
        (folder / "checkpoint").unlink(missing_ok=True)
        self.log(
            f"victim {spec.name}: test accuracy {measured['test_accuracy']:.2%} "
            f"in {record['seconds']:.0f} s"
        )

    def _trained(self, spec: VictimSpec, checkpoint: Path) -> tuple[nn.Module, list[Any]]:
        return train_victim(
            recipe_of(spec, self.root),
            reference=None if spec.variant == "float" else self.network(spec.reference),
            twin=() if spec.loss is None else self._twin(spec),
            checkpoint=checkpoint,
            name=spec.name,
            on_epoch=self._after_epoch,
        )

    def _after_epoch(self, row: dict[str, float]) -> None:
        if self.out_of_time():
            raise OutOfTimeError(f"stopped after epoch {row['epoch']:.0f} of a victim's training")

    def _twin(self, spec: VictimSpec) -> tuple[float, ...]:
        history = read_json(self.folder(spec.twin) / "victim.json")["history"]
        return tuple(row["val_accuracy"] for row in history)

    def _export(self, spec: VictimSpec, network: nn.Module, path: Path) -> dict[str, Any]:
        from fpga_flow.export import export_qonnx

        images = to_float(self.data(spec, "val")[0][:_PARITY_IMAGES].numpy())
        report = export_qonnx(network, path, images)
        if report.network is None:
            raise CheckFailedError(
                f"{spec.name} cannot be lowered to integers: {report.not_lowered}"
            )
        parity = {"inputs": report.parity.inputs, "mismatches": report.parity.mismatches}
        return {"parity": parity, "flips_by_settling": report.flips}

    def _answers(self, spec: VictimSpec, device: Predictor, pixels: Images) -> Logits:
        """The logits on test data, kept for the evaluator."""
        logits = device.predict(pixels)
        with replacing(self.folder(spec) / "test.npy") as temporary:
            np.save(temporary, logits)
        return logits

    def _measure(self, spec: VictimSpec, network: nn.Module) -> dict[str, Any]:
        """Accuracy of what is attacked, and what an honest user notices, on test data."""
        images, labels = self.data(spec, "test")
        pixels, truth = to_float(images.numpy()), labels.numpy()
        original = network if spec.variant == "float" else self.network(spec.reference)
        reference = TorchPredictor(original)
        device = reference if spec.variant == "float" else self._engine(spec)
        logits, float_logits = self._answers(spec, device, pixels), reference.predict(pixels)
        strangers = to_float(noise(_UTILITY_IMAGES, self.shape(spec), seed=0))
        utility = utility_row(logits, float_logits, truth, device.predict(strangers))
        few = slice(0, _UTILITY_IMAGES)
        made = adversarial_examples(original, pixels[few], truth[few], _PGD_EPS, _PGD_STEPS)
        moved = AdversarialLogits(device.predict(made), reference.predict(made))
        transfer = transfer_row(logits[few], float_logits[few], truth[few], moved)
        utility["adversarial"] = {"pgd-8/255": transfer}
        return {"test_accuracy": utility["accuracy"], "utility": utility}


def recipe_of(spec: VictimSpec, root: Path | None = None) -> VictimRecipe:
    """How the victim is made.

    Args:
        spec: the victim.
        root: data folder; None: the cache.
    """
    is_float = spec.variant == "float"
    settings = TrainSettings(
        epochs=spec.float_epochs if is_float else spec.quant_epochs,
        batch_size=spec.batch_size,
        learning_rate=spec.learning_rate if is_float else spec.quant_learning_rate,
        augment=spec.augment,
        precision=spec.precision,
        seed=spec.seed,
    )
    if spec.loss is None:
        variant: Literal["float", "qat", "divqat"] = "float" if is_float else "qat"
    else:
        variant = "divqat"
    return VictimRecipe(
        dataset=spec.dataset,
        model=spec.model,
        variant=variant,
        settings=settings,
        bits=spec.bits,
        preset=spec.preset,
        changes=dict[str, Any](spec.changes),
        guard=spec.guard,
        decoy_cost=spec.decoy_cost,
        shape=spec.shape,
        root=root,
    )
