"""Asking twice: only images whose label survives small changes of the image are learned from.

Aimed at defences that give wrong labels by a rule on the image, such as a keyed misdirection: a
true response seldom changes with a mirrored, shifted or brighter version, a wrong one often does.
It is the adaptive attack that such a rule invites (Tramèr, Carlini, Brendel and Mądry, "On Adaptive
Attacks to Adversarial Example Defenses", NeurIPS 2020), with the changes over which Athalye,
Engstrom, Ilyas and Kwok, "Synthesizing Robust Adversarial Examples", ICML 2018, take expectations.
No paper has it in this form.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import Within
from divqat_brevitas.extraction.arrays import Images, Labels, Responses, substream, to_float
from divqat_brevitas.extraction.attacks.base import PoolAttack, Queries, ask
from divqat_brevitas.extraction.learners.base import TransferSet
from divqat_brevitas.extraction.victim import Victim

_PART = 250
"""Images whose versions are asked together."""


@dataclass(frozen=True)
class StableQueries(PoolAttack):
    """Asks random images of a pool, then changed versions of them, and learns from stable ones.

    The versions are the image itself, the mirrored image, the image shifted by ``shift`` pixels
    in a random direction, and a brighter or darker one. An image whose label changes gets no
    further query. Each version is a query, and the clone is trained on all versions of the stable
    images with their own responses. If fewer than two images are stable, all responses are used.
    A row of ``Result.rounds`` has the "queries" so far and the numbers of "images" and of "stable"
    ones among them.

    Args:
        learner: trains the clone.
        seed: of the selection and the changes.
        flip: mirror; for natural images only.
        shift: pixels of the shift; zeros fill the border; 0: no shifted version.
        brightness: largest change of all pixels, in [0, 1); at least half of it is used; 0: no such
            version.

    Example:
        >>> from torch import nn
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> learner = PlainLearner(surrogate="mlp", epochs=1)
        >>> StableQueries(learner).run(Victim(model, budget=50), pool).queries_used
        50
    """

    flip: bool = False
    shift: Annotated[int, Within(low=0)] = 1
    brightness: Annotated[float, Within(low=0, below=1)] = 0.1

    @property
    def name(self) -> str:
        """The name in results, "knockoff-stable" or "knockoff-stable-mirrored"."""
        return "knockoff-stable-mirrored" if self.flip else "knockoff-stable"

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        """Ask all versions part by part; indices name an image once a query."""
        rng = substream(self.seed, "versions")
        order = self._random(images, len(images))
        asked: list[Images] = []
        responses: list[Responses] = []
        indices: list[Labels] = []
        stable = np.zeros(len(images), np.bool_)
        versions = 1 + self.flip + (self.shift > 0) + (self.brightness > 0)
        left, done = budget, 0
        rounds = []
        while left > 0 and done < len(order):
            # Small enough for all versions of its images, so that few queries are asked once.
            part = order[done : done + min(_PART, max(1, left // versions))]
            done += len(part)
            rows, labels = part, None
            for version in self._versions(to_float(images[part]), rng):
                # Without budget for its next version an image does not count as stable.
                rows, version = rows[:left], version[np.isin(part, rows)][:left]
                if len(rows) == 0:
                    break
                asked.append(version)
                responses.append(ask(victim, version))
                indices.append(rows)
                left -= len(rows)
                new = responses[-1].argmax(axis=1)
                new[~responses[-1].any(axis=1)] = -1  # no label at all
                same = new >= 0 if labels is None else new == labels[: len(rows)]
                rows, labels = rows[same], new[same]
            stable[rows] = True
            rounds.append({"queries": budget - left, "images": done, "stable": int(stable.sum())})
        every = np.concatenate(indices)
        kept = stable[every] if stable.sum() >= 2 else np.ones(len(every), np.bool_)
        return Queries(
            TransferSet(np.concatenate(asked)[kept], np.concatenate(responses)[kept]),
            every,
            rounds,
            used=len(every),
        )

    def _versions(self, images: Images, rng: np.random.Generator) -> list[Images]:
        """The versions, each float32 (N, C, H, W); the images themselves first."""
        versions = [images]
        if self.flip:
            versions.append(np.ascontiguousarray(images[..., ::-1]))
        if self.shift:
            dy, dx = ((0, 1), (0, -1), (1, 0), (-1, 0))[int(rng.integers(4))]
            versions.append(_shifted(images, dy * self.shift, dx * self.shift))
        if self.brightness:
            change = rng.uniform(self.brightness / 2, self.brightness, (len(images), 1, 1, 1))
            sign = rng.choice((-1, 1), change.shape)
            versions.append(np.clip(images + (sign * change).astype(np.float32), 0, 1))
        return versions


def _shifted(images: Images, dy: int, dx: int) -> Images:
    shifted = np.zeros_like(images)
    height, width = images.shape[2:]
    rows, columns = (slice(max(0, d), min(n, n + d)) for d, n in ((dy, height), (dx, width)))
    from_rows, from_columns = (
        slice(max(0, -d), min(n, n - d)) for d, n in ((dy, height), (dx, width))
    )
    shifted[:, :, rows, columns] = images[:, :, from_rows, from_columns]
    return shifted
