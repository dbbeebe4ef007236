"""ONNX files of strangers: read as data, and refused with the file's name and a way out."""

from divqat_brevitas.errors import InputError

REMEDY = "Use a model you exported yourself (fpga_flow.export_qonnx)"


class UnsafeModelError(InputError):
    """A model file that asks for what no QONNX classifier needs."""


def short(error: object) -> str:
    """An error's text in one line of at most 300 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def unsafe(name: str, problem: str) -> UnsafeModelError:
    """The error of a file with a problem."""
    return UnsafeModelError(f"{name}: {problem}. {REMEDY}.")
