"""Convolutions in floating point: the library's in plain geometries, products everywhere else.

Libraries' convolutions are tried on the geometries of common networks, and wrong on rare ones. Two
faults are known, both with a stride along an axis on which the output has length 1, so that the
input has columns that no window reads: oneDNN 3.12 adds what is not there in grouped int8
convolutions, now and then (strides (1, 3), one output column), and PyTorch 2.13 is wrong for maps
of one channel with channels last in memory (strides (1, 2), one output column). So a convolution
is brought to a normal form first, in which such strides do not exist, and the library gets it only
if it is plain; what is rarer is computed as one product for each place of the kernel.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fpga_flow.integer.kernel import Kernel, bound, code_dtype, named, pad, sum_dtype
from fpga_flow.integer.layout import channels_last
from fpga_flow.integer.trial import agrees
from fpga_flow.lowering import Layer
from fpga_flow.lowering.ir import Conv, Pair

_ALL = slice(None)


@dataclass(frozen=True)
class Windows:
    """A convolution in normal form.

    Attributes:
        layer: equal to the convolution on the part of the input that is read.
        part: rows and columns of the input that are read.
    """

    layer: Conv
    part: tuple[slice, slice]

    def read(self, x: Tensor) -> Tensor:
        """The part of a map (N, C, H, W) that is read."""
        rows, columns = self.part
        return x if rows == columns == _ALL else x[:, :, rows, columns]

    @property
    def is_plain(self) -> bool:
        """Whether libraries may compute it: groups, dilations and rare geometries are not."""
        layer = self.layer
        return (
            layer.groups == 1
            and layer.dilations == (1, 1)
            and layer.strides[0] == layer.strides[1] <= min(layer.weight.shape[2:])
            and (layer.shape[2] > 1 or layer.shape[1] == 1)
        )

    @property
    def padding(self) -> Pair | None:
        """What a library pads itself: rows and columns, the same on both sides; else None."""
        top, left, bottom, right = self.layer.pads
        _, _, height, width = self.layer.weight.shape
        even = (top, left) == (bottom, right) and top < height and left < width
        return (top, left) if even else None


class _Axis(NamedTuple):
    """One axis of a convolution; ``kept`` places of the kernel, ``part`` of the input."""

    places: int
    stride: int
    before: int
    after: int
    dilation: int
    kept: slice = _ALL
    part: slice = _ALL

    def normal(self, size: int, length: int) -> "_Axis":
        """With what is not read left out, and stride and dilation 1 where they say nothing."""
        starts = [place * self.dilation - self.before for place in range(self.places)]
        inside = [place for place, start in enumerate(starts) if 0 <= start < size]
        if length == 1 and inside:
            first, last = inside[0], inside[-1]
            part = slice(starts[first], starts[last] + 1, self.dilation)
            whole = part.indices(size) == _ALL.indices(size)
            kept = slice(first, last + 1)
            return _Axis(last + 1 - first, 1, 0, 0, 1, kept, _ALL if whole else part)
        if self.places == 1 and self.stride > 1 and not (self.before or self.after):
            return _Axis(1, 1, 0, 0, 1, part=slice(0, (length - 1) * self.stride + 1, self.stride))
        return self._replace(dilation=1) if self.places == 1 else self


def normal_form(layer: Conv, source: Layer) -> Windows:
    """The same sums from what the windows read.

    Where the output has length 1, that is the kernel's places inside the input; a kernel of
    length 1 reads every stride-th column.
    """
    _, _, *kernel = layer.weight.shape
    top, left, bottom, right = layer.pads
    rows, columns = (
        _Axis(places, stride, before, after, dilation).normal(size, length)
        for places, stride, before, after, dilation, size, length in zip(
            kernel,
            layer.strides,
            (top, left),
            (bottom, right),
            layer.dilations,
            source.shape[1:],
            layer.shape[1:],
            strict=True,
        )
    )
    plain = replace(
        layer,
        weight=layer.weight[:, :, rows.kept, columns.kept],
        strides=(rows.stride, columns.stride),
        pads=(rows.before, columns.before, rows.after, columns.after),
        dilations=(rows.dilation, columns.dilation),
    )
    return Windows(plain, (rows.part, columns.part))


def compile_conv(layer: Conv, source: Layer, batch: int) -> Kernel:
    """The library's convolution where it is plain and passes its trial, else `placed_conv`."""
    dtype = sum_dtype(layer, bound(layer, source))
    windows = normal_form(layer, source)
    # One channel with channels last is the other known fault.
    if windows.is_plain and source.shape[0] > 1:
        direct = direct_conv(windows, dtype)
        if agrees(direct, [layer], source, code_dtype(source), batch):
            return direct
    return placed_conv(layer, dtype)


def direct_conv(windows: Windows, dtype: torch.dtype) -> Kernel:
    """The library's convolution."""
    layer = windows.layer
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    padding = windows.padding

    def run(x: Tensor) -> Tensor:
        x = channels_last(windows.read(x.to(dtype)))
        if padding is None:
            x = channels_last(pad(x, layer.pads, 0.0))
        return F.conv2d(x, weight, stride=layer.strides, padding=padding or 0)

    return Kernel(named(dtype), run)


def placed_conv(layer: Conv, dtype: torch.dtype) -> Kernel:
    """A product for each place of the kernel, and their sum: slower, exact in any geometry."""
    out, per_group, places_y, places_x = layer.weight.shape
    groups = layer.groups
    # (kh, kw, groups, in / groups, out / groups)
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    weight = weight.reshape(groups, out // groups, per_group, places_y, places_x)
    weight = weight.permute(3, 4, 0, 2, 1).contiguous()

    def product(x: Tensor, w: Tensor) -> Tensor:
        """(positions, groups, in / groups) by (groups, in / groups, out / groups)."""
        if per_group == 1:
            return x * w[:, 0]
        if groups == 1:
            return (x[:, 0] @ w[0])[:, None]
        return torch.bmm(x.transpose(0, 1), w).transpose(0, 1)

    def run(x: Tensor) -> Tensor:
        x = pad(x.to(dtype), layer.pads, 0.0).permute(0, 2, 3, 1)
        total: Tensor | None = None
        for i in range(places_y):
            for j in range(places_x):
                rows, columns = (
                    slice(at * d, at * d + (length - 1) * s + 1, s)
                    for at, d, s, length in zip(
                        (i, j), layer.dilations, layer.strides, layer.shape[1:], strict=True
                    )
                )
                part = x[:, rows, columns].reshape(-1, groups, per_group)
                term = product(part, weight[i, j])
                total = term if total is None else total.add_(term)
        assert total is not None
        return total.reshape(x.shape[0], *layer.shape[1:], out).permute(0, 3, 1, 2)

    return Kernel(f"{named(dtype)}, place by place", run)
