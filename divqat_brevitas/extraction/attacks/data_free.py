"""The base of attacks that start from no image: a generator makes the queries.

They take the (channels, height, width) of an image as their pool, spend their whole budget, and
never ask anything outside [0, 1].
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from divqat_brevitas.data.arrays import Shape
from divqat_brevitas.errors import InputError, Within
from divqat_brevitas.extraction.arrays import Responses, substream
from divqat_brevitas.extraction.attacks.base import (
    NO_INDICES,
    Queries,
    Result,
    Round,
    SeededAttack,
    allowance,
    ask,
    clone_seed,
)
from divqat_brevitas.extraction.attacks.students import Generator, Matching, Memory, Students
from divqat_brevitas.extraction.learners.base import (
    Learner,
    PlainLearner,
    TrainedClone,
    TransferSet,
)
from divqat_brevitas.extraction.learners.prior import CorrectedLearner
from divqat_brevitas.extraction.surrogates.networks import SURROGATES, check_image_shape
from divqat_brevitas.extraction.surrogates.training import Epoch, SurrogateTraining
from divqat_brevitas.extraction.victim import Victim

ALONG = 0.5
"""Part of the students' passes during the queries; the rest follows, at a falling learning rate."""

DEFAULT_EPOCHS = 20


def image_shape(pool: object) -> Shape:
    """Check the (C, H, W) that a data-free attack takes as its pool.

    Raises:
        InputError: anything else, such as images, or a side below 8.
    """
    if not isinstance(pool, tuple | list) or not all(isinstance(n, int) for n in pool):
        raise InputError(
            "a data-free attack takes no images, but the (channels, height, width) of one, such "
            f"as (1, 28, 28); got {type(pool).__name__}."
        )
    check_image_shape(tuple(pool))
    channels, height, width = pool
    return channels, height, width


@dataclass(frozen=True)
class Course:
    """The streams and the students' settings of one run.

    Attributes:
        victim: gets the queries.
        shape: (C, H, W) of an image.
        budget: number of queries to ask.
        seed: of the attack.
        learner: trains the clone, or defines the students; without a correction.
        matching: what students match.
        draws: random numbers of noise and batches.
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
        """Settings of the students' training: those of a plain learner, or the defaults."""
        learner = self.learner
        return learner.training if isinstance(learner, PlainLearner) else SurrogateTraining()

    @property
    def bfloat16(self) -> bool:
        """Whether products are computed in bfloat16."""
        return self.training.precision == "bfloat16"

    def with_labels_only(self) -> "Course":
        """The same for an attack that uses only the labels of responses."""
        if self.matching.method.partition(":")[0] == "smooth":
            return self
        return replace(self, matching=Matching("argmax", l1=False))

    @property
    def epochs(self) -> int:
        """Passes over all responses, divided among the students."""
        return self.learner.epochs if isinstance(self.learner, PlainLearner) else DEFAULT_EPOCHS

    def generator(self) -> Generator:
        """A new generator."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(substream(self.seed, "gan").integers(2**62)))
            generator = Generator(self.shape)
        return generator.train()

    def start(self, images: Tensor, students: int) -> tuple[Students, Memory]:
        """Ask a first batch, which shows the number of classes, and build the students."""
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

    def ask(self, images: Tensor) -> tuple[NDArray[np.uint8], Responses]:
        """Ask images rounded to 8 bits, as image files are; return them and the responses."""
        pixels = (images.detach() * 255).round().to(torch.uint8).contiguous().numpy()
        return pixels, ask(self.victim, pixels)


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


@dataclass(frozen=True)
class DataFreeAttack(SeededAttack):
    """An attack that makes its own images; subclasses give :meth:`_queries`.

    Attributes:
        batch_size: images a batch, at least 2.
    """

    batch_size: Annotated[int, Within(low=2)] = 128

    def run(self, victim: Victim, pool: Any, budget: int | None = None) -> Result:
        """Ask ``budget`` queries and return the trained student.

        Args:
            victim: is asked.
            pool: the (channels, height, width) of an image, sides of at least 8.
            budget: number of queries to ask; None: all that the victim has left.

        Raises:
            BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
            InputError: no image shape, fewer than 2 queries, or responses without information.
        """
        shape = image_shape(pool)
        allowed = allowance(victim, budget)
        if allowed < 2:
            raise InputError(f"a clone needs at least 2 answered queries, but gets {allowed}.")
        course = self._course(victim, shape, allowed)
        students, memory, rounds = self._queries(course)
        transfer_set = memory.transfer_set()
        seed = clone_seed(self.seed)
        if isinstance(course.learner, PlainLearner):
            history = cool_down(course, students, memory)
            clone = TrainedClone(students.clone(), history)
        else:
            clone = course.learner.learn(transfer_set, seed)
        learner = self.clone_learner()
        if isinstance(learner, CorrectedLearner):
            clone = learner.correct(
                clone, transfer_set, seed, lambda part: course.learner.learn(part, seed)
            )
        queries = Queries(transfer_set, NO_INDICES, rounds, allowed)
        loss = "l1 on logits" if course.matching.l1 else "cross-entropy"
        return self.result(victim, allowed, clone, queries, image=list(shape), loss=loss)

    def _course(self, victim: Victim, shape: Shape, budget: int) -> Course:
        """What the run needs; an attack that uses only labels changes its matching."""
        learner = self.trainer()
        method = learner.targets if isinstance(learner, PlainLearner) else "soft"
        return Course(
            victim,
            shape,
            budget,
            self.seed,
            learner,
            Matching.of(victim.oracle, method),
            torch.Generator().manual_seed(int(substream(self.seed, "draws").integers(2**62))),
        )

    @abstractmethod
    def _queries(self, course: Course) -> tuple[Students, Memory, list[Round]]:
        """Spend the budget; return the students, what was asked, and one row a round."""
