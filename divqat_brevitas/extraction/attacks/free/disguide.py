"""DisGUIDE: queries on which two students disagree.

Rosenthal, Enouen, Pham and Tan, "DisGUIDE: Disagreement-Guided Data-Free Model Extraction",
AAAI 2023; hyper-parameters from its published code.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from divqat_brevitas.extraction.attacks.base import Round
from divqat_brevitas.extraction.attacks.free.common import (
    Course,
    DataFreeAttack,
    parts,
    rehearse,
)
from divqat_brevitas.extraction.attacks.free.generator import Generator
from divqat_brevitas.extraction.attacks.free.students import Memory, Students


def disagreement(probabilities: Tensor) -> Tensor:
    """Mean over images and classes of the standard deviation over students.

    Args:
        probabilities: of each student, float (students, N, classes).
    """
    return probabilities.std(dim=0).mean()


def class_diversity(probabilities: Tensor) -> Tensor:
    """Negative entropy of a batch's mean probabilities, lowest for equally frequent classes.

    Args:
        probabilities: (N, classes).
    """
    mean = probabilities.mean(dim=0) + 1e-6
    return (mean * mean.log()).sum()


@dataclass(frozen=True)
class DisGUIDE(DataFreeAttack):
    """Two students, and a generator of images on which they differ.

    The generator minimises ``diversity * class_diversity - disagreement``. Its gradient needs only
    the students and no query, so all responses train students, and labels ("top1", or targets
    "argmax") are as useful as probabilities. Students learn from new and earlier responses
    (experience replay) and form one clone by soft vote.

    Deviations from the paper, which has 20 M queries: everything ever asked is remembered, and
    the students make a fixed number of passes over it, the last of them with a falling learning
    rate after the last query; two generator steps of rate 1e-3 (paper: one of 1e-4) a batch of
    128 (256); images are asked rounded to 8 bits; no grey images are mixed in.

    Args:
        seed: of everything random in the attack, at least 0.
        learner: a :class:`PlainLearner` (the default) defines the students' network, initial
            weights, targets, epochs (passes over all responses, half of them for each student)
            and, of its training, batch_size, learning_rate, momentum, weight_decay, clip_norm and
            precision; any other learner trains the clone on all queried images.
        batch_size: number of queries between steps of the generator.
        generator_steps: number of its steps for a batch.
        generator_rate: its learning rate (Adam).
        diversity: weight of the class diversity.

    Raises:
        InputError: a number out of range.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner, Victim
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> attack = DisGUIDE(learner=PlainLearner(surrogate="mlp", epochs=2))
        >>> attack.run(Victim(model, budget=200), (1, 8, 8)).queries_used
        200
    """

    generator_steps: int = 2
    generator_rate: float = 1e-3
    diversity: float = 0.2

    _positive: ClassVar[tuple[str, ...]] = (
        "generator_steps",
        "generator_rate",
    )

    @property
    def name(self) -> str:
        """The attack's name in results."""
        return "disguide"

    def _queries(self, course: Course) -> tuple[Students, Memory, list[Round]]:
        generator = course.generator()
        optimizer = torch.optim.Adam(generator.parameters(), lr=self.generator_rate)
        # The first batch comes from the untrained generator.
        first, *later = parts(course.budget, self.batch_size)
        students, memory = course.start(generator.images(first, course.draws), 2)
        loss = rehearse(course, students, memory, first)
        rounds: list[Round] = [{"queries": first, "loss": loss}]
        for count in later:
            losses = [
                self._step(generator, optimizer, students, course)
                for _ in range(self.generator_steps)
            ]
            memory.add(*course.ask(generator.images(count, course.draws)))
            loss = rehearse(course, students, memory, count)
            rounds.append({"queries": memory.size, "loss": loss, "generator_loss": losses[-1]})
        return students, memory, rounds

    def _step(
        self,
        generator: Generator,
        optimizer: torch.optim.Optimizer,
        students: Students,
        course: Course,
    ) -> float:
        with students.frozen(), students.cast():
            images = generator(generator.noise(self.batch_size, course.draws))
            responses = torch.stack([F.softmax(z, dim=1) for z in students.logits(images)])
        loss = self.diversity * class_diversity(responses.mean(dim=0)) - disagreement(responses)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()
