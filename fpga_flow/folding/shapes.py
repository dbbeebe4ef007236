"""What the cycle and cost models know of a hardware layer: plain numbers, no FINN."""

from dataclasses import dataclass

MVAU = "MVAU"
VVAU = "VVAU"  # of depthwise convolutions
THRESHOLDING = "Thresholding"
PADDING = "FMPadding"
WINDOW = "ConvolutionInputGenerator"
POOL = "Pool"
FORK = "DuplicateStreams"
JOIN = "ElementwiseAdd"
CONCAT = "StreamingConcat"
SUM = "GlobalAccPool"
SHIFT = "Shift"  # thresholds that pass codes, times a power of two: wires
CONVERTER = "StreamingDataWidthConverter"
FIFO = "StreamingFIFO"
PRODUCTS = (MVAU, VVAU)  # that multiply by weights


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One hardware layer, before it is folded.

    Attributes:
        name: FINN's node name, such as ``MVAU_rtl_0``.
        kind: FINN's operator without back end, such as ``MVAU``.
        height: of the input feature map; 1 behind a flattening.
        width: of the input feature map.
        channels: of the input.
        out_channels: of the output; a matrix' rows (MH).
        columns: inputs of one dot product: a matrix' columns (MW), pixels of a depthwise
            convolution's window; 0 elsewhere.
        vectors: output pixels an image.
        kernel: (height, width) of a window.
        stride: (down, right).
        dilation: (down, right).
        depthwise: windows a channel, as pooling takes them.
        padding: (top, left, bottom, right).
        input_bits: of one input integer.
        output_bits: of one output integer.
        weight_bits: of one weight.
        steps: thresholds a channel.
        per_channel: whether every channel has thresholds of its own.
        fused: of a pool that takes the image itself: name of FINN's window generator in front
            of it, which goes; "" elsewhere.
        parts: channels of each stream that a concatenation takes; () elsewhere.
        sources: the ports it reads, see ``branches``; empty: the layer before it.
    """

    name: str
    kind: str
    height: int = 1
    width: int = 1
    channels: int = 1
    out_channels: int = 1
    columns: int = 0
    vectors: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    depthwise: bool = False
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    input_bits: int = 1
    output_bits: int = 1
    weight_bits: int = 0
    steps: int = 0
    per_channel: bool = True
    fused: str = ""
    parts: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def taps(self) -> int:
        """Pixels a window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def inputs(self) -> int:
        """Integers that enter an image."""
        if self.kind == MVAU:
            return self.vectors * self.columns
        if self.kind == VVAU or (self.kind == POOL and not self.fused):
            return self.vectors * self.taps * self.channels
        if self.kind in (THRESHOLDING, FORK, JOIN, SHIFT):
            return self.vectors * self.channels
        return self.height * self.width * self.channels

    @property
    def outputs(self) -> int:
        """Integers that leave an image."""
        if self.kind == WINDOW:
            return self.vectors * self.taps * self.channels
        if self.kind == PADDING:
            top, left, bottom, right = self.padding
            return (self.height + top + bottom) * (self.width + left + right) * self.channels
        return self.vectors * self.out_channels


@dataclass(frozen=True)
class Folding:
    """How parallel a layer works.

    Attributes:
        pe: outputs at a time (MVAU, VVAU, Thresholding, Pool).
        simd: inputs at a time (MVAU, ConvolutionInputGenerator, FMPadding, StreamingConcat).
        parallel_window: a whole window a beat (ConvolutionInputGenerator).
        in_turn: thresholds are compared one after the other (Thresholding). The generator
            decides that by itself, behind a slow matrix.
        dsp: products are made by the device's multipliers (MVAU, VVAU).
    """

    pe: int = 1
    simd: int = 1
    parallel_window: bool = False
    in_turn: bool = False
    dsp: bool = False


def input_lanes(shape: LayerShape, folding: Folding) -> int:
    """Integers a beat that the layer takes."""
    return folding.simd if shape.kind in (MVAU, WINDOW, PADDING, CONCAT) else folding.pe


def output_lanes(shape: LayerShape, folding: Folding) -> int:
    """Integers a beat that the layer gives."""
    if shape.kind == WINDOW:
        return folding.simd * (shape.taps if folding.parallel_window else 1)
    return folding.simd if shape.kind in (PADDING, CONCAT) else folding.pe
