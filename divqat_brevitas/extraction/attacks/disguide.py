"""DisGUIDE and DFMS-HL: data-free attacks whose generator needs no gradient of the victim.

Rosenthal, Enouen, Pham and Tan, "DisGUIDE: Disagreement-Guided Data-Free Model Extraction", AAAI
2023, hyper-parameters from its published code; Sanyal, Addepalli and Babu, "Towards Data-Free Model
Stealing in a Hard Label Setting", CVPR 2022.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from divqat_brevitas.data.arrays import Shape
from divqat_brevitas.data.drawings import noise
from divqat_brevitas.errors import Within
from divqat_brevitas.extraction.arrays import substream
from divqat_brevitas.extraction.attacks.base import Round
from divqat_brevitas.extraction.attacks.data_free import Course, DataFreeAttack, parts, rehearse
from divqat_brevitas.extraction.attacks.students import Generator, Memory, Students, discriminator
from divqat_brevitas.extraction.victim import Victim


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
    the students and no query, so all responses train students, and labels are as useful as
    probabilities. Students learn from new and earlier responses (experience replay) and form one
    clone by soft vote.

    Deviations from the paper, which has 20 M queries: everything ever asked is remembered, in a
    fixed number of passes, the last of them with a falling learning rate after the last query; two
    generator steps of rate 1e-3 (paper: one of 1e-4) a batch of 128 (256); images are asked rounded
    to 8 bits; no grey images are mixed in.

    Args:
        learner: as for :class:`DFME`, for two students that share the epochs.
        seed: of everything random in the attack.
        batch_size: number of queries between steps of the generator.
        generator_steps: number of its steps for a batch.
        generator_rate: its learning rate (Adam).
        diversity: weight of the class diversity.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner, Victim
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> attack = DisGUIDE(learner=PlainLearner(surrogate="mlp", epochs=2))
        >>> attack.run(Victim(model, budget=200), (1, 8, 8)).queries_used
        200
    """

    generator_steps: Annotated[int, Within(low=1)] = 2
    generator_rate: Annotated[float, Within(above=0)] = 1e-3
    diversity: float = 0.2

    name = "disguide"

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


class _Gan:
    """A generator, a discriminator, and the proxy images between them."""

    def __init__(self, attack: "DFMSHL", course: Course) -> None:
        self.attack, self.course = attack, course
        self.generator: Generator = course.generator()
        seed = int(substream(course.seed, "discriminator").integers(2**62))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.discriminator: nn.Module = discriminator(course.shape)
        seed = int(substream(course.seed, "proxy").integers(2**31))
        self.proxies = torch.from_numpy(noise(attack.proxies, course.shape, seed))
        self.optimizers = [
            torch.optim.Adam(network.parameters(), attack.generator_rate, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        ]

    def proxy(self, count: int) -> Tensor:
        """Random proxy images, float32 in [0, 1]."""
        rows = torch.randint(len(self.proxies), (count,), generator=self.course.draws)
        return self.proxies[rows].float() / 255

    def step(self, students: Students | None) -> float:
        """One step of each network; students add the class diversity to the generator's loss."""
        size = self.attack.batch_size
        with torch.autocast("cpu", torch.bfloat16, enabled=self.course.bfloat16):
            generated = self.generator(self.generator.noise(size, self.course.draws))
            real = self.discriminator(self.proxy(size)).float()
            fake = self.discriminator(generated.detach()).float()
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        self.optimizers[1].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[1].step()

        self.discriminator.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.course.bfloat16):
            loss = F.softplus(-self.discriminator(generated).float()).mean()
        if students is not None:
            with students.frozen():
                (logits,) = students.logits(generated)
            loss = loss + self.attack.diversity * class_diversity(F.softmax(logits, dim=1))
        self.optimizers[0].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[0].step()
        self.discriminator.requires_grad_(True)
        return loss.item()


@dataclass(frozen=True)
class DFMSHL(DataFreeAttack):
    """A GAN on synthetic proxy images whose generator also covers all classes.

    First the GAN learns the proxy images. Part of the budget then asks proxies and generated images
    in equal parts (the student's first training). The rest asks generated images batch by batch,
    while the generator minimises its adversarial loss plus ``diversity`` times the class diversity
    of the student's responses. The student uses only labels: the largest entry of richer responses
    (smoothed with the targets "smooth").

    Deviations from the paper, which has 8 M queries and also real proxy images: the proxies are the
    noise images of :func:`divqat_brevitas.data.drawings.noise` (the paper's are shapes on plain
    colours); the student also learns from remembered responses as :class:`DFME`'s does; the
    generator's network is DFME's; images are asked rounded to 8 bits.

    Args:
        learner: as for :class:`DFME`.
        seed: of everything random in the attack.
        batch_size: number of queries between steps of the GAN.
        proxies: number of synthetic images.
        gan_steps: number of steps of the GAN before the first query.
        start: part of the budget for the student's first training.
        generator_steps: number of steps of the GAN for a batch.
        generator_rate: its learning rate (Adam, betas 0.5 and 0.999).
        diversity: weight of the class diversity.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner, Victim
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> attack = DFMSHL(learner=PlainLearner(surrogate="mlp", epochs=2), gan_steps=2)
        >>> attack.run(Victim(model, "top1", budget=200), (1, 8, 8)).queries_used
        200
    """

    proxies: Annotated[int, Within(low=1)] = 5000
    gan_steps: Annotated[int, Within(low=1)] = 200
    start: Annotated[float, Within(above=0)] = 0.3
    generator_steps: Annotated[int, Within(low=1)] = 1
    generator_rate: Annotated[float, Within(above=0)] = 2e-4
    diversity: float = 500.0

    name = "dfms-hl"

    def _course(self, victim: Victim, shape: Shape, budget: int) -> Course:
        return super()._course(victim, shape, budget).with_labels_only()

    def _queries(self, course: Course) -> tuple[Students, Memory, list[Round]]:
        gan = _Gan(self, course)
        for _ in range(self.gan_steps):
            gan.step(None)
        first = min(course.budget, max(2, round(self.start * course.budget)))
        proxies = gan.proxy(first // 2)
        generated = [
            gan.generator.images(n, course.draws) for n in parts(first - len(proxies), 256)
        ]
        students, memory = course.start(torch.cat([proxies, *generated]), 1)
        loss = rehearse(course, students, memory, first)
        rounds: list[Round] = [{"queries": first, "loss": loss}]
        for count in parts(course.budget - first, self.batch_size):
            losses = [gan.step(students) for _ in range(self.generator_steps)]
            memory.add(*course.ask(gan.generator.images(count, course.draws)))
            loss = rehearse(course, students, memory, count)
            rounds.append({"queries": memory.size, "loss": loss, "generator_loss": losses[-1]})
        return students, memory, rounds
