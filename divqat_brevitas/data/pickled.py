"""Read the Python version of CIFAR without letting the pickle run anything.

These files are pickles of ``{"data": uint8 (N, 3072), "labels": [int], ...}``. A pickle
names the callables it wants; here each of the few names a NumPy array needs is given a
stand-in that only keeps its arguments, and every other name is refused. No NumPy code,
and nothing the file names, is ever called. The opcodes are looked through first, so that
a small file can ask neither for much memory nor for much time.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np

from divqat_brevitas.data.arrays import Images, Labels
from divqat_brevitas.errors import InputError

_PLAIN = frozenset(  # what may be used again: names and numbers' texts
    ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "GLOBAL")
)


def _slot(argument: object) -> int:
    """A memo slot; the text opcodes write it in decimal."""
    return int(str(argument))


def _reader(data: bytes) -> pickle.Unpickler:
    # The stand-ins are made anew for each file: a file cannot leave anything behind in them.
    class Kept:
        """A value under construction: constructor arguments and state, uninterpreted."""

        def __init__(self, *args: object) -> None:
            self.args, self.state = args, None

        def __setstate__(self, state: Any) -> None:
            self.state = state

    class Encode(bytes):
        """``_codecs.encode(text, "latin1")``: how Python 3 writes bytes in protocol 2."""

        def __new__(cls, text: str, codec: str = "latin1") -> "Encode":
            if codec != "latin1":
                raise pickle.UnpicklingError(f"unexpected codec {codec!r}")
            return super().__new__(cls, text, codec)

    allowed: dict[tuple[str, str], type] = {
        ("numpy.core.multiarray", "_reconstruct"): Kept,
        ("numpy._core.multiarray", "_reconstruct"): Kept,
        ("numpy", "ndarray"): Kept,
        ("numpy", "dtype"): Kept,
        ("_codecs", "encode"): Encode,
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR does not")
            return allowed[module, name]

    return Reader(io.BytesIO(data), encoding="bytes")


def _check_opcodes(data: bytes) -> None:
    """Refuse what is larger than it looks.

    Opcodes that allocate what they declare (memo slots far off, protocol 3 and later), and
    containers used twice: 50 tuples, each of the one before twice, take 2^50 steps to hash.
    """
    containers: set[object] = set()
    last = ""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if "PUT" in opcode.name:
            (containers.discard if last in _PLAIN else containers.add)(_slot(argument))
        elif opcode.name == "DUP" or ("GET" in opcode.name and _slot(argument) in containers):
            raise pickle.UnpicklingError("it uses a value twice, which CIFAR does not")
        last = opcode.name
        if opcode.proto > 2:
            raise pickle.UnpicklingError(f"{opcode.name} is of a later protocol than CIFAR's")
        if "PUT" in opcode.name and argument is not None and not 0 <= int(argument) <= count + 1:
            raise pickle.UnpicklingError(f"memo slot {argument} after {count} operations")


def parse_cifar_pickle(data: bytes, where: str, label_key: str) -> tuple[Images, Labels]:
    """Parse one batch file of CIFAR's Python version.

    Args:
        data: content of the file.
        where: name for messages.
        label_key: "labels" (CIFAR-10) or "fine_labels" (CIFAR-100).

    Returns:
        uint8 (N, 3, 32, 32) and int64 (N,).

    Raises:
        InputError: not such a file, or one that asks for anything else than a NumPy array.
    """
    try:
        _check_opcodes(data)
        content = _reader(data).load()
        values = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
        # state of an ndarray: version, shape, dtype, Fortran order, raw bytes
        _, shape, dtype, fortran, raw = values["data"].state
        rows, pixels = shape
        if dtype.args[0] not in ("u1", b"u1") or fortran or pixels != 3072:
            raise ValueError(f"data is {dtype.args[0]!r} of shape {shape}")
        images = np.frombuffer(raw, np.uint8).reshape(rows, 3, 32, 32)
        labels = np.array([int(v) for v in values[label_key]], dtype=np.int64)
    except Exception as e:  # a hostile or broken pickle fails in many ways
        raise InputError(
            f"{where}: is not a batch of CIFAR's Python version ({type(e).__name__}: {e}). "
            "Get it again, or take the binary version (cifar-10-batches-bin, cifar-100-binary)."
        ) from e
    return images, labels
