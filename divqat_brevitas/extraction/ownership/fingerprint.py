"""A secret fingerprint of responses: a few in a thousand show a label that only the secret knows.

An attacker trains its clone on the responses, so the clone learns these labels with the others:
from in-distribution images and labels only, too. Which responses change, and to which label, is a
keyed hash of the image. It needs no state, and one image always gets the same response. The owner
keeps the images whose response changed: they are the triggers of the ownership test.

The construction is DAWN's (Szyller et al., ACM Multimedia 2021). Triggers that are trained into the
network instead (EWE, Jia et al., USENIX Security 2021; class-feature watermarks, arXiv 2511.07947)
need no log, but twenty secret families of textures with secret labels, which a network of 8x8
digits showed on 97 to 100 % of its triggers, did not reach clones from in-distribution labels at
all (rate 0.12 to 0.15, chance 0.1).

Limits: only clones whose queries were logged are recognised, so the fingerprint is for a served
victim (a chip has no log). The image is hashed after rounding to 8 bits, so another image of the
same object is another query: an attacker who asks twice, with the image mirrored, sees two labels
and may drop both, at twice the queries.
"""

import base64
import hashlib
import hmac
import json
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import CheckedSettings, InputError, Within
from divqat_brevitas.extraction.arrays import Images, Labels, Responses
from divqat_brevitas.short_repr import ShortRepr

_DIGITS = frozenset(string.hexdigits.lower())


@dataclass(frozen=True)
class Fingerprint(CheckedSettings):
    """Which responses change, and to which label.

    Attributes:
        secret: 64 hexadecimal digits.
        classes: number of the victim's classes, at least 3.
        share: of the responses that change, a fraction of 1: what the label of an honest user's
            image is wrong by.

    Raises:
        InputError: a malformed secret or a number out of range.

    Example:
        >>> images = np.random.default_rng(0).random((1000, 1, 8, 8), np.float32)
        >>> fingerprint = Fingerprint("ab" * 32, classes=10, share=0.01)
        >>> marked, labels = fingerprint.read(images, np.zeros(1000, np.int64))
        >>> int(marked.sum()), bool((labels[marked] != 0).all()), int(labels[~marked].max())
        (16, True, 0)
    """

    secret: str = field(repr=False)
    classes: Annotated[int, Within(low=3)]
    share: Annotated[float, Within(above=0, high=0.5)] = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.secret) != 64 or not _DIGITS.issuperset(self.secret):
            raise InputError("the secret of a fingerprint must be 64 hexadecimal digits.")

    def read(self, images: Images, own: Labels) -> tuple[NDArray[np.bool_], Labels]:
        """What the responses to images become.

        Args:
            images: float32 (N, ...) in [0, 1], rounded to 8 bits here.
            own: (N,) the victim's own labels.

        Returns:
            Whether each response changes, bool (N,); and the labels that are shown, (N,).
        """
        hashes = np.array([self._numbers(image) for image in stored(images)], np.uint64)
        marked = hashes[:, 0] < np.uint64(self.share * 2**64)
        steps = 1 + (hashes[:, 1] % np.uint64(self.classes - 1)).astype(np.int64)
        return marked, np.where(marked, (own + steps) % self.classes, own)

    def _numbers(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """Two independent whole numbers below 2**64."""
        key = bytes.fromhex(self.secret)
        digest = hmac.digest(key, repr(image.shape).encode() + image.tobytes(), hashlib.sha256)
        return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


@dataclass(frozen=True)
class Triggers(ShortRepr):
    """Images whose response the fingerprint changed, each once.

    Attributes:
        images: uint8 (N, C, H, W).
        own: (N,) the victim's own labels.
    """

    images: NDArray[np.uint8]
    own: Labels

    def __len__(self) -> int:
        return len(self.own)


class TriggerLog:
    """The triggers of a served victim, in memory and, with a path, in a file of JSON lines.

    Args:
        path: a line a trigger, appended; what is there is read. None: only in memory.

    Raises:
        InputError: the file holds something else.

    Example:
        >>> log = TriggerLog()
        >>> log.add(np.zeros((2, 1, 8, 8), np.uint8), [3, 3])
        >>> len(log.triggers())  # one image
        1
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lines: dict[bytes, tuple[tuple[int, ...], int]] = {}
        if path is not None and path.is_file():
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                image = base64.b64decode(row["image"], validate=True)
                shape = tuple(int(side) for side in row["shape"])
                np.frombuffer(image, np.uint8).reshape(shape)
                self._lines[image] = shape, int(row["label"])
        except (OSError, ValueError, TypeError, KeyError) as e:
            raise InputError(f"{path} is no file of triggers ({e!r}). Restore it.") from e

    def add(self, images: NDArray[np.uint8], own: Iterable[int]) -> None:
        """Keep images, uint8 (N, C, H, W), with the victim's own labels."""
        fresh = []
        for image, label in zip(images, own, strict=True):
            content = image.tobytes()
            if content not in self._lines:
                self._lines[content] = image.shape, int(label)
                row = {"image": base64.b64encode(content).decode(), "shape": list(image.shape)}
                fresh.append(json.dumps(row | {"label": int(label)}) + "\n")
        if self.path is not None and fresh:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(fresh)

    def triggers(self) -> Triggers:
        """All of them, in order.

        Raises:
            InputError: there is none, or images have several shapes.
        """
        shapes = {shape for shape, _ in self._lines.values()}
        if len(shapes) != 1:
            raise InputError(
                f"{self.path or 'the log'} holds images of {len(shapes)} shapes; a test needs "
                "triggers of one shape. No response changed yet where there are none."
            )
        images = np.frombuffer(b"".join(self._lines), np.uint8).reshape(-1, *shapes.pop())
        return Triggers(images, np.array([own for _, own in self._lines.values()], np.int64))


class FingerprintedResponses:
    """The fingerprint as a defence of a :class:`Victim` or of a served model.

    Where the response changes, the probabilities of the victim's own label and of the shown one
    change places.

    Args:
        fingerprint: which responses change.
        log: where their images are kept.

    Example:
        >>> from torch import nn
        >>> from divqat_brevitas.extraction import Victim
        >>> marking = FingerprintedResponses(Fingerprint("ab" * 32, classes=10, share=0.1))
        >>> victim = Victim(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "top1", 100, marking)
        >>> _ = victim.query(np.random.default_rng(0).random((100, 1, 8, 8), np.float32))
        >>> len(marking.log.triggers())
        7
    """

    def __init__(self, fingerprint: Fingerprint, log: TriggerLog | None = None) -> None:
        self.fingerprint = fingerprint
        self.log = TriggerLog() if log is None else log

    @property
    def name(self) -> str:
        """The kind and the share, such as "fingerprint:0.005"; the secret is not in it."""
        return f"fingerprint:{self.fingerprint.share:g}"

    @property
    def settings(self) -> dict[str, Any]:
        """The share of responses that change."""
        return {"share": self.fingerprint.share}

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Responses (N, classes) with the changed labels, whose images are logged."""
        if probabilities.shape[1] < self.fingerprint.classes:
            raise InputError(
                f"the fingerprint is for {self.fingerprint.classes} classes, and the victim has "
                f"{probabilities.shape[1]}."
            )
        shown = probabilities.copy()
        own = probabilities.argmax(axis=1).astype(np.int64)
        marked, labels = self.fingerprint.read(images, own)
        # A reject output is no class: its responses stay.
        rows = np.flatnonzero(marked & (own < self.fingerprint.classes))
        shown[rows, own[rows]] = probabilities[rows, labels[rows]]
        shown[rows, labels[rows]] = probabilities[rows, own[rows]]
        self.log.add(stored(images[rows]), own[rows])
        return shown


def stored(images: Images) -> NDArray[np.uint8]:
    """Images in [0, 1] as they are hashed and logged: 8 bits a pixel."""
    return np.rint(255 * images).astype(np.uint8)
