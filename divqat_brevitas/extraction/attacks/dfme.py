"""DFME: a generator trained with estimated gradients of the victim.

Truong, Maini, Walls and Papernot, "Data-Free Model Extraction", CVPR 2021: the game of sec. 3,
logits from probabilities (sec. 4.3) and forward differences (sec. 4.4); hyper-parameters from its
published code.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from divqat_brevitas.errors import Within
from divqat_brevitas.extraction.attacks.base import Round, ask
from divqat_brevitas.extraction.attacks.data_free import Course, DataFreeAttack, parts, rehearse
from divqat_brevitas.extraction.attacks.students import Generator, Memory, Students, squash


@dataclass(frozen=True)
class DFME(DataFreeAttack):
    """A generator of images on which student and victim differ most.

    An iteration asks ``student_steps`` batches for the student. Each of ``generator_steps`` then
    asks one batch of images and ``directions`` random changes of each image; all of them count as
    queries. A remainder below one iteration is used for the student. With labels only ("top1",
    targets "argmax") the distance is cross-entropy: the method needs probabilities.

    Deviations from the paper, which has 20 M queries: the student also learns from remembered
    responses, in a fixed number of passes, the last ones after the last query; batches of 64
    (paper: 256) and a generator rate of 1e-3 (1e-4), for more steps a query; changes of about 0.01
    a pixel (the paper's 2e-5 is far below an 8-bit level and does not change a quantized victim's
    response); the student's images are asked rounded to 8 bits (those of the estimate are not, and
    the student is not trained on them).

    Args:
        learner: a :class:`PlainLearner` (the default) defines the student's network, initial
            weights, targets, epochs (passes over all responses) and, of its training, batch_size,
            learning_rate, momentum, weight_decay, clip_norm and precision; any other learner trains
            the clone on all images of the student.
        seed: of everything random in the attack.
        batch_size: number of images in a batch.
        student_steps: number of batches for the student in an iteration (n_S).
        generator_steps: number of batches for the generator in an iteration (n_G).
        directions: number of changes of an image for the estimate of its gradient (m).
        change: root mean square of a change, before the squashing to [0, 1].
        generator_rate: the generator's learning rate (Adam).

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner, Victim
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> attack = DFME(learner=PlainLearner(surrogate="mlp", epochs=2), batch_size=16)
        >>> attack.run(Victim(model, budget=200), (1, 8, 8)).queries_used
        200
    """

    batch_size: Annotated[int, Within(low=2)] = 64
    student_steps: Annotated[int, Within(low=1)] = 5
    generator_steps: Annotated[int, Within(low=1)] = 1
    directions: Annotated[int, Within(low=1)] = 1
    change: Annotated[float, Within(above=0)] = 0.01
    generator_rate: Annotated[float, Within(above=0)] = 1e-3

    name = "dfme"

    def _queries(self, course: Course) -> tuple[Students, Memory, list[Round]]:
        generator = course.generator()
        optimizer = torch.optim.Adam(generator.parameters(), lr=self.generator_rate)
        cost = self.batch_size * (self.directions + 1)
        first = min(self.batch_size, course.budget)
        students, memory = course.start(generator.images(first, course.draws), 1)
        left, asked = course.budget - first, first
        rounds: list[Round] = []
        while asked or left:
            due = min(left, self.student_steps * self.batch_size - asked)
            for count in parts(due, self.batch_size):
                memory.add(*course.ask(generator.images(count, course.draws)))
                left, asked = left - count, asked + count
            loss = rehearse(course, students, memory, asked)
            row: Round = {"queries": course.budget - left, "loss": loss}
            asked = 0
            for _ in range(self.generator_steps):
                # Without later queries of the student a step has no effect.
                if left < cost + self.batch_size:
                    break
                row["generator_loss"] = self._step(generator, optimizer, students, course)
                left -= cost
            rounds.append(row)
        return students, memory, rounds

    def _step(
        self,
        generator: Generator,
        optimizer: torch.optim.Optimizer,
        students: Students,
        course: Course,
    ) -> float:
        optimizer.zero_grad()
        x = generator.before_squash(generator.noise(self.batch_size, course.draws))
        gradient, distance = self._estimate(x.detach(), students, course)
        (-x).backward(gradient)  # type: ignore[no-untyped-call]
        optimizer.step()
        return -distance

    @torch.no_grad()
    def _estimate(self, x: Tensor, students: Students, course: Course) -> tuple[Tensor, float]:
        """Forward-difference gradient of the mean distance by ``x``, and the distance."""
        count, numbers = len(x), x[0].numel()
        radius = self.change * numbers**0.5
        directions = torch.randn(count, self.directions, numbers, generator=course.draws)
        directions /= directions.norm(dim=2, keepdim=True)
        offsets = torch.cat([torch.zeros(count, 1, numbers), radius * directions], dim=1)
        points = squash(x.flatten(1)[:, None] + offsets).view(-1, *course.shape)
        targets = course.matching.targets(ask(course.victim, points.numpy()))
        # In full precision whatever the training's: differences of bfloat16 logits are noise.
        with students.frozen():
            logits = students.networks[0](points)
        distances = course.matching.distances(logits, targets).view(count, -1)
        slopes = (distances[:, 1:] - distances[:, :1]) / radius
        gradient = numbers * (slopes[:, :, None] * directions).mean(dim=1) / count
        return gradient.view_as(x), float(distances[:, 0].mean())
