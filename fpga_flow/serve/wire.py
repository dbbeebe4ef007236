"""What goes over the line: images in as JSON or raw npy, answers and errors out as JSON.

Nothing is unpickled: of an npy body the header is read (a literal, at most 10,000 characters) and
the bytes behind it are taken as numbers.
"""

import io
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses, check_images, to_float
from divqat_brevitas.input_range import UNIT, InputRange

JSON = "application/json"
NPY = "application/x-npy"

_HOW = (
    f'Send {JSON}: {{"images": [...]}} with numbers in [0, 1] nested (N, C, H, W), or {NPY}: the '
    "bytes of np.save(file, images, allow_pickle=False), float32 in [0, 1] or uint8."
)


@dataclass
class RequestError(Exception):
    """A request that cannot be answered; it costs nothing."""

    status: int  # HTTP's number
    code: str  # a fixed word for programs
    message: str  # what is wrong, and the fix
    close: bool = False  # whether the connection ends with it


def decode(
    body: bytes,
    content_type: str,
    shape: tuple[int, ...],
    most: int,
    declared: InputRange | None = None,
) -> Images:
    """Images, float32 (N, *shape) in the victim's input range, of a request's body.

    At most ``most`` images; ``declared`` None is the range [0, 1]. A RequestError says what is
    wrong with anything that is not such images, with the fix.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (JSON, NPY):
        raise RequestError(415, "unsupported-type", f"the body is {kind or 'of no type'!r}. {_HOW}")
    array = _from_json(body) if kind == JSON else _from_npy(body)
    if array.shape[1:] != shape or not len(array):
        raise RequestError(
            400,
            "bad-shape",
            f"images must have shape (N, {', '.join(map(str, shape))}) with at least one image, "
            f"but came as {array.shape}.",
        )
    if len(array) > most:
        raise RequestError(
            413,
            "too-many-images",
            f"{len(array)} images came in one request, but {most} may. Send them in parts.",
        )
    try:
        # Pixels of 0 to 255 are what they are where a victim declares another range.
        values = to_float(array) if declared in (None, UNIT) else array
        return check_images(np.ascontiguousarray(values, np.float32), declared=declared)
    except InputError as e:
        raise RequestError(400, "bad-values", str(e)) from e


def encode(images: NDArray[Any]) -> bytes:
    """Images as an npy body."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(images), allow_pickle=False)
    return buffer.getvalue()


def _from_json(body: bytes) -> NDArray[Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        document = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        said = "it is nested too deeply" if isinstance(e, RecursionError) else str(e)
        raise RequestError(400, "bad-json", f"the body is not JSON ({said}). {_HOW}") from e
    if not isinstance(document, dict) or set(document) != {"images"}:
        raise RequestError(400, "bad-json", f'the body must have "images" and nothing else. {_HOW}')
    try:
        array = np.asarray(document["images"])
        numbers = array.dtype.kind in "iuf"
    except (ValueError, OverflowError, RecursionError):  # rows of unequal lengths, above all
        numbers = False
    if not numbers:
        raise RequestError(
            400, "bad-json", f'"images" is not an even nest of numbers (rows of one length). {_HOW}'
        )
    with np.errstate(over="ignore"):  # infinity, which the check of values names
        return array.astype(np.float32)


def _from_npy(body: bytes) -> NDArray[Any]:
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version[0]}.{version[1]}, not 1.0 or 2.0")
    except Exception as e:  # NumPy's reader raises many kinds, IndexError too, on a damaged header
        raise RequestError(400, "bad-npy", f"the body is not npy ({e}). {_HOW}") from e
    if dtype not in (np.dtype("<f4"), np.dtype("|u1")):
        raise RequestError(400, "bad-dtype", f"the images are {dtype}. {_HOW}")
    # The shape is the sender's claim: believed only if the bytes are there.
    rest = len(body) - stream.tell()
    if len(shape) < 2 or min(shape) < 0:
        raise RequestError(400, "bad-shape", f"images came with shape {shape}. {_HOW}")
    wanted = dtype.itemsize * math.prod(shape)
    if rest != wanted:
        raise RequestError(
            400,
            "bad-npy",
            f"the npy header promises {wanted} bytes of numbers (shape {shape}, {dtype}), but "
            f"{rest} came: the body is {'cut off' if rest < wanted else 'too long'}.",
        )
    flat = np.frombuffer(body, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def answer_document(answers: Responses, **more: Any) -> bytes:
    """Answers as a JSON document; float32 survives the way to decimal and back exactly."""
    return json.dumps({"answers": answers.tolist(), **more}, allow_nan=False).encode()


def error_document(code: str, message: str) -> bytes:
    """An error as a JSON document."""
    return json.dumps({"error": {"code": code, "message": message}}).encode()
