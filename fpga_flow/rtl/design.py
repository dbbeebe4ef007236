"""A stitched hardware design on disk: what the generator writes, simulation and synthesis read."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import PlainSerializer, PlainValidator

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import in_place_of, sha256_file
from divqat_brevitas.input_range import InputRange
from fpga_flow.lowering.answer import LABEL_KINDS, AnswerUnit
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.records import Recorded

RECORD = "design.json"
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Stream:
    """An AXI-Stream of integers.

    Attributes:
        lanes: integers a beat, the first in the lowest bits.
        bits: of one integer.
        signed: two's complement, or not.
        beats: beats an image.
    """

    lanes: int
    bits: int
    signed: bool
    beats: int

    @property
    def bytes(self) -> int:
        """Bytes of ``tdata``: the lanes, padded with zeros to whole bytes."""
        return -(-self.lanes * self.bits // 8)

    @property
    def range(self) -> InputRange:
        """The integers there are."""
        low = -(1 << (self.bits - 1)) if self.signed else 0
        return InputRange(low, low + (1 << self.bits) - 1)

    def pack(self, values: Integers) -> Bytes:
        """``values`` (..., lanes) as beats, uint8 (..., bytes).

        Example:
            >>> Stream(lanes=2, bits=4, signed=False, beats=1).pack(np.array([[1, 2]]))
            array([[33]], dtype=uint8)
        """
        if self.lanes * self.bits == 8 * self.bytes and self.bits == 8:
            return values.astype(np.uint8)
        taken = (values[..., None] >> np.arange(self.bits)) & 1
        bits = taken.astype(np.uint8).reshape(*values.shape[:-1], self.lanes * self.bits)
        return np.packbits(bits, axis=-1, bitorder="little")

    def unpack(self, beats: Bytes) -> Integers:
        """The integers, int64 (..., lanes), of beats (..., bytes)."""
        bits = np.unpackbits(beats, axis=-1, bitorder="little", count=self.lanes * self.bits)
        lanes = bits.reshape(*beats.shape[:-1], self.lanes, self.bits).astype(np.int64)
        values: Integers = (lanes << np.arange(self.bits)).sum(axis=-1)
        if self.signed:
            values -= (values >> (self.bits - 1)) << self.bits
        return values


@dataclass(frozen=True)
class Node:
    """One hardware layer.

    Attributes:
        name: FINN's node name, such as ``MVAU_rtl_0``, and ``input_fifo``, ``MVAU_rtl_0_fifo``,
            ``MVAU_rtl_0_dwc`` for what we insert behind: its instance in the top, and the prefix
            of its output stream's nets (``MVAU_rtl_0_tdata``, ``_tvalid``, ``_tready``). A fork
            has such nets of every reader, too: ``DuplicateStreams_hls_0_0_tdata``, ...
        op: FINN's operator without the back end: ``MVAU``, ``Thresholding``, ``Pool``,
            ``ConvolutionInputGenerator``, ``FMPadding``, ``DuplicateStreams``, ``ElementwiseAdd``,
            ``StreamingConcat``, ``GlobalAccPool``, ``StreamingDataWidthConverter``,
            ``StreamingFIFO``.
        layer: QONNX tensor whose integers leave this node (an activation's codes, or the last
            accumulators), channels last; None for the others.
        input: what it takes, and ``output``, what it gives.
        cycles: clock cycles an image, as predicted by us; None: not predicted.
        finn_cycles: FINN's own estimate.
        pe: processing elements, None where it has none.
        simd: inputs at a time, None where it has none.
        depth: entries of a FIFO, None for the others.
        sources: ports that it reads (see ``folding.branches``), behind their FIFOs where there
            are some; empty: the node before it.
        others: the streams that a sum of branches or a concatenation takes beside ``input``.
        copies: readers of a fork.
        least: beats that a shortcut's FIFO has to hold, or the design hangs.
        multipliers: whether synthesis puts its products into the device's multipliers.
    """

    name: str
    op: str
    layer: str | None
    input: Stream
    output: Stream
    cycles: int | None
    finn_cycles: int
    pe: int | None
    simd: int | None
    depth: int | None = None
    sources: tuple[str, ...] = ()
    others: tuple[Stream, ...] = ()
    copies: int = 1
    least: int = 0
    multipliers: bool = False

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of the streams that readers take."""
        if self.copies == 1:
            return (self.name,)
        return tuple(f"{self.name}_{k}" for k in range(self.copies))


def _input_step(value: Any) -> InputStep:
    return value if isinstance(value, InputStep) else InputStep.from_record(value)


def _unit(value: Any) -> AnswerUnit | None:
    return AnswerUnit.from_record(value) if isinstance(value, dict) else value


@dataclass(frozen=True)
class Design(Recorded):
    """A network as one SystemVerilog design: layers and AXI-Streams under one top.

    The top's ports: ``ap_clk``, ``ap_rst_n`` (synchronous, low), ``s_axis_tdata/tvalid/tready``,
    ``m_axis_tdata/tvalid/tready``. Images enter channels last, ``input.lanes`` integers a beat;
    the last accumulators leave, ``output.lanes`` classes a beat. Memory files are read from the
    working directory, which has to be ``folder``.

    Attributes:
        folder: holds ``design.json``, ``src/`` and the memory files.
        top: name of the top module.
        sources: SystemVerilog files in the order to be read, relative to ``folder``.
        data: memory files (``$readmemh``), relative to ``folder``.
        style: ``"portable"`` (our modules for what is tied to AMD's primitives) or ``"finn"``.
        nodes: the layers and FIFOs, each behind those it reads.
        input: stream of the top's input, and ``output``, of its output.
        input_shape: (C, H, W) of an image, or (features,).
        input_step: what the host makes of an image: the integers that enter.
        output_layer: QONNX node behind the last accumulators.
        output_scale: ``logits = accumulators * output_scale + output_bias``; one or per class.
        output_bias: see ``output_scale``.
        onnx_sha256: of the QONNX file.
        versions: of the tools that generated it.
        answer: what leaves an image: ``"accumulators"``, or the name of ``unit``: ``"top1"``,
            ``"rounded:3"``, ...
        unit: the answer unit on the chip, None where accumulators leave it.
    """

    RECORD = RECORD
    ABSENT = "holds no hardware design. Run `divqat compile` first."

    folder: Path
    top: str
    sources: tuple[str, ...]
    data: tuple[str, ...]
    style: str
    nodes: tuple[Node, ...]
    input: Stream
    output: Stream
    input_shape: tuple[int, ...]
    input_step: Annotated[InputStep, PlainValidator(_input_step), PlainSerializer(InputStep.record)]
    output_layer: str
    output_scale: tuple[float, ...]
    output_bias: tuple[float, ...]
    onnx_sha256: str
    versions: Mapping[str, str]
    answer: str = "accumulators"
    unit: Annotated[AnswerUnit | None, PlainValidator(_unit)] = None

    @property
    def needed(self) -> tuple[str, ...]:
        """Files of the folder beside the record."""
        return (*self.sources, *self.data)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the names and contents of all sources and memory files, and the top.

        Over the layers that take multipliers, too.
        """
        hashed = hashlib.sha256(self.top.encode())
        for node in self.nodes:
            if node.multipliers:
                hashed.update(f"\nmultipliers {node.name}".encode())
        for name in (*self.sources, *self.data):
            hashed.update(f"\n{name} {sha256_file(self.folder / name)}".encode())
        return hashed.hexdigest()

    @property
    def classes(self) -> int:
        """Number of the last accumulators."""
        if self.unit is not None:
            return self.unit.outputs
        for node in self.nodes:
            if node.op == "LabelSelect":  # of a design without a record of its unit
                return node.input.beats
        return self.output.lanes * self.output.beats

    def before(self, node: Node) -> list[Node]:
        """The nodes whose streams a node takes; none: the design's input."""
        owner = {port: one for one in self.nodes for port in (one.name, *one.ports)}
        if not node.sources:
            return list(self.nodes[: self.nodes.index(node)][-1:])
        return [owner[port] for port in node.sources if port in owner]

    @property
    def label_only(self) -> bool:
        """Whether only a label leaves the chip."""
        return self.answer.partition(":")[0] in LABEL_KINDS

    @property
    def compared(self) -> dict[str, str]:
        """What comparing ``answers`` compares, for a row of the equivalence table.

        ``answer`` tells of which unit codes are.
        """
        if self.answer == "accumulators":
            return {"unit": "accumulators"}
        return {"unit": "labels" if self.label_only else "codes", "answer": self.answer}

    def beats(self, images: npt.NDArray[np.float32]) -> Bytes:
        """What enters for ``images`` (N, *input_shape) in [0, 1]: uint8 (N, beats, bytes)."""
        codes = self.input_step.codes(images)
        if codes.ndim == 4:
            codes = codes.transpose(0, 2, 3, 1)
        return self.input.pack(codes.reshape(len(images), self.input.beats, self.input.lanes))

    def accumulators(self, beats: Bytes) -> Integers:
        """The last accumulators, int64 (N, classes), of output beats (N, beats, bytes).

        Raises:
            InputError: the design returns only labels or codes.
        """
        if self.answer != "accumulators":
            given = "labels" if self.label_only else f"codes ({self.answer})"
            raise InputError(
                f"the hardware design {self.folder} gives {given}, no accumulators. Generate it "
                'with DesignSettings(output="accumulators"), or compile.answer="logits".'
            )
        return self.answers(beats)

    def answers(self, beats: Bytes) -> Integers:
        """The integers that leave the chip, of output beats (N, beats, bytes).

        int64 (N, classes): accumulators or codes; of a design with only labels (N, 1).
        """
        values = self.output.unpack(beats).reshape(
            len(beats), self.output.lanes * self.output.beats
        )
        if self.unit is not None and self.unit.flagged:
            return values & ((1 << self.unit.code_bits) - 1)
        return values

    def predict(self, beats: Bytes) -> npt.NDArray[np.float32]:
        """Logits, float32 (N, classes), of output beats: of accumulators, or decoded from codes.

        Raises:
            InputError: labels of a design that was written without its answer unit.
        """
        if self.unit is not None:
            return self.unit.logits(self.answers(beats))
        return self.logits(self.accumulators(beats))

    def labels(self, beats: Bytes) -> Integers:
        """Labels, int64 (N,), of output beats (N, beats, bytes).

        Accumulators are scaled in float64 here; an answer unit does it in integers. Of
        codes, the lowest class of the highest code.
        """
        if self.label_only:
            return self.answers(beats)[:, 0]
        if self.unit is not None:
            best: Integers = self.predict(beats).argmax(axis=1).astype(np.int64)
            return best
        sums = self.accumulators(beats)
        labels: Integers = (
            (sums * np.array(self.output_scale) + np.array(self.output_bias))
            .argmax(axis=1)
            .astype(np.int64)
        )
        return labels

    def logits(self, accumulators: Integers) -> npt.NDArray[np.float32]:
        """float32 (N, classes): scaled and shifted in float64, rounded once."""
        scale, bias = np.array(self.output_scale), np.array(self.output_bias)
        logits: npt.NDArray[np.float32] = (accumulators * scale + bias).astype(np.float32)
        return logits


@contextmanager
def growing_design(folder: Path) -> Iterator[Path]:
    """Give a hidden sibling of ``folder``; it takes its place when the block succeeds.

    Raises:
        InputError: something else than a design is in ``folder``, or it cannot be written.
    """
    folder = Path(folder).absolute()
    with in_place_of(folder, "hardware design", RECORD):
        folder.parent.mkdir(parents=True, exist_ok=True)
        growing = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            growing.chmod(0o755)  # mkdtemp makes it private
            yield growing
            shutil.rmtree(folder, ignore_errors=True)
            growing.rename(folder)
        finally:
            shutil.rmtree(growing, ignore_errors=True)
