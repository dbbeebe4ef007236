"""What the data-free attacks share: their border, their queries, their end."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.data.arrays import Shape
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Responses, substream
from divqat_brevitas.extraction.attacks.base import (
    Result,
    Round,
    allowance,
    ask,
    clone_seed,
    deliver,
    met,
)
from divqat_brevitas.extraction.attacks.free.generator import Generator
from divqat_brevitas.extraction.attacks.free.students import Matching, Memory, Students
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.networks import SURROGATES, check_image_shape
from divqat_brevitas.extraction.surrogates.training import Epoch, SurrogateTraining

ALONG = 0.5
"""Part of the students' passes made while queries are asked; the rest follows, cooling down."""

DEFAULT_EPOCHS = 20


def image_shape(pool: object) -> Shape:
    """The (C, H, W) that stands for a pool in a data-free attack.

    Raises:
        InputError: something else, such as images, or a side below 8.
    """
    if not isinstance(pool, tuple | list) or not all(isinstance(n, int) for n in pool):
        raise InputError(
            "a data-free attack takes no images, but the (channels, height, width) of one, such "
            f"as (1, 28, 28); got {type(pool).__name__}."
        )
    check_image_shape(tuple(pool))
    channels, height, width = pool
    return channels, height, width


def positive(attack: Any, *counts: str) -> None:
    """Refuse a negative seed, batches of one image, and other fields that are not above 0.

    Raises:
        InputError: one of them.
    """
    if attack.seed < 0:
        raise InputError(f"{attack.name} needs a seed of at least 0, but got {attack.seed}.")
    if attack.batch_size < 2:
        raise InputError(
            f"{attack.name}: batch_size must be at least 2, but is {attack.batch_size}."
        )
    for name in counts:
        if not getattr(attack, name) > 0:
            raise InputError(
                f"{attack.name}: {name} must be above 0, but is {getattr(attack, name)!r}."
            )


@dataclass(frozen=True)
class Course:
    """The seeds, streams and students' settings of one run; see :func:`begin`.

    Attributes:
        victim: is asked.
        shape: (C, H, W) of an image.
        budget: queries to spend.
        seed: of the attack.
        learner: brought along by the caller.
        matching: what students match.
        draws: for noise and batches.
    """

    victim: Victim
    shape: Shape
    budget: int
    seed: int
    learner: Learner
    matching: Matching
    draws: torch.Generator

    @property
    def training(self) -> SurrogateTraining:
        """How students are trained: the plain learner's settings, or the defaults."""
        learner = self.learner
        return learner.training if isinstance(learner, PlainLearner) else SurrogateTraining()

    @property
    def bfloat16(self) -> bool:
        """Whether products are computed in bfloat16."""
        return self.training.precision == "bfloat16"

    def with_labels_only(self) -> "Course":
        """The same, for an attack that takes nothing of a response but its label."""
        if self.matching.method.partition(":")[0] == "smooth":
            return self
        return replace(self, matching=Matching("argmax", l1=False))

    @property
    def epochs(self) -> int:
        """Passes over all responses, shared by the students: two make half as many each."""
        return self.learner.epochs if isinstance(self.learner, PlainLearner) else DEFAULT_EPOCHS

    def generator(self) -> Generator:
        """A fresh generator."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(substream(self.seed, "gan").integers(2**62)))
            generator = Generator(self.shape)
        return generator.train()

    def start(self, images: Tensor, students: int) -> tuple[Students, Memory]:
        """Ask a first batch, which also tells how many classes are; the networks are fresh."""
        pixels, responses = self.ask(images)
        first = TransferSet(pixels, responses)
        plain = self.learner
        if not isinstance(plain, PlainLearner):
            known = plain.surrogate in SURROGATES
            plain = PlainLearner(surrogate=plain.surrogate) if known else PlainLearner()
        seeds = np.random.default_rng(clone_seed(self.seed)).integers(2**31, size=students)
        networks = [plain.build(first, int(seed)) for seed in seeds]
        memory = Memory(self.budget, self.shape, first.classes, self.matching)
        memory.add(pixels, responses)
        return Students(networks, self.matching, self.training), memory

    def settings(self, attack: Any) -> dict[str, Any]:
        """The attack's hyper-parameters and what it met."""
        own = {f.name: getattr(attack, f.name) for f in fields(attack) if f.name != "learner"}
        return (
            {"attack": attack.name, **own, "image": list(self.shape)}
            | {"loss": "l1 on logits" if self.matching.l1 else "cross-entropy"}
            | met(self.victim, self.budget)
        )

    def ask(self, images: Tensor) -> tuple[NDArray[np.uint8], Responses]:
        """Ask images rounded to 8 bits, as image files are; return them and the responses."""
        pixels = (images.detach() * 255).round().to(torch.uint8).contiguous().numpy()
        return pixels, ask(self.victim, pixels)


def begin(
    victim: Victim, pool: object, budget: int | None, learner: Learner | None, seed: int
) -> Course:
    """Check what came in and set up a run.

    Raises:
        BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
        InputError: no image shape, or fewer than 2 queries.
    """
    shape = image_shape(pool)
    budget = allowance(victim, budget)
    if budget < 2:
        raise InputError(f"a clone needs at least 2 answered queries, but gets {budget}.")
    learner = learner or PlainLearner()
    targets = learner.targets if isinstance(learner, PlainLearner) else "soft"
    return Course(
        victim,
        shape,
        budget,
        seed,
        learner,
        Matching.of(victim.oracle, targets),
        torch.Generator().manual_seed(int(substream(seed, "draws").integers(2**62))),
    )


def parts(total: int, size: int) -> list[int]:
    """``total`` in the fewest almost equal parts of at most ``size``."""
    if total == 0:
        return []
    count = -(-total // size)
    return [total // count + (i < total % count) for i in range(count)]


def rehearse(course: Course, students: Students, memory: Memory, asked: int) -> float:
    """Train on remembered responses, in proportion to ``asked`` new ones; returns the last loss."""
    size = course.training.batch_size
    passes = ALONG * course.epochs / len(students.networks)
    steps = max(1, round(passes * asked / size))
    loss = 0.0
    for images, targets in memory.batches(size, steps, course.draws):
        loss = students.step(images, targets)
    return loss


def cool_down(course: Course, students: Students, memory: Memory) -> list[Epoch]:
    """The remaining passes over all responses, with a learning rate that falls to zero (cosine)."""
    epochs = max(1, round((1 - ALONG) * course.epochs / len(students.networks)))
    size = course.training.batch_size
    history: list[Epoch] = []
    steps, step = epochs * max(1, memory.size // size), 0
    for epoch in range(1, epochs + 1):
        losses = []
        for images, targets in memory.epoch(size, course.draws):
            rate = float(np.cos(np.pi / 2 * step / steps) ** 2)
            losses.append(students.step(images, targets, rate))
            step += 1
        history.append({"epoch": epoch, "loss": float(np.mean(losses))})
    return history


def finish(
    course: Course,
    students: Students,
    memory: Memory,
    rounds: list[Round],
    settings: dict[str, Any],
) -> Result:
    """The clone: the students, or what a learner of another kind makes of all responses.

    Raises:
        InputError: no response says anything.
    """
    if not memory.responses[: memory.size].any():
        raise InputError(
            "the responses say nothing to train on: all their entries are zero. The oracle rounds "
            "too coarsely for the number of classes."
        )
    if not isinstance(course.learner, PlainLearner):
        return deliver(
            course.learner,
            TransferSet(memory.images[: memory.size].numpy(), memory.responses[: memory.size]),
            seed=course.seed,
            queries_used=course.budget,
            settings=settings,
            rounds=rounds,
        )
    history = cool_down(course, students, memory)
    clone: nn.Module = students.clone()
    settings["learner"] = {"name": course.learner.name, **course.learner.settings}
    return Result(clone, course.budget, history, rounds, np.zeros(0, np.int64), settings)
