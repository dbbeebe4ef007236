"""The one check that matters: all ways to execute a model give the same integers."""

import numpy as np
from numpy.typing import NDArray
from qonnx.core.modelwrapper import ModelWrapper

from fpga_flow.export.execution import QonnxEngine
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.lowering import Network, clean, lower, settle


def assert_equivalent(
    model: ModelWrapper, images: NDArray[np.float32], settled: bool = True, labels: bool = True
) -> Network:
    """QONNX execution, the int64 reference and the fast engine agree on every integer.

    Settled first: QONNX computes in float32, whose noise may cross a threshold that lies on an
    integer.
    """
    cleaned = clean(model)
    if settled:
        settle(cleaned)
    network = lower(cleaned)
    reference = network.run(images)
    engine = IntegerEngine(network)
    tensors = [layer.tensor for layer in network.layers if layer.tensor]
    # batch 4: the last batch is a partial one
    floats = QonnxEngine(cleaned, batch=4).tensors(images, [*tensors, cleaned.graph.output[0].name])
    for layer in network.layers:
        fast = engine.integers(images, [layer.output])[layer.output]
        assert np.array_equal(fast, reference[layer.output]), layer.name
        low, high = layer.low, layer.high
        per_channel = np.moveaxis(fast, 1, 0).reshape(len(low), -1).T
        assert ((low <= per_channel) & (per_channel <= high)).all(), layer.name
        if layer.tensor:
            theirs = network.to_integers(layer.tensor, floats[layer.tensor])
            assert np.array_equal(fast, theirs), layer.name
    logits = engine.predict(images)
    assert np.array_equal(logits, network.predict(images))
    theirs = floats[cleaned.graph.output[0].name].reshape(logits.shape)
    # float32 noise of QONNX's sums, relative to the largest logit
    assert np.abs(logits - theirs).max() <= 1e-5 * max(1.0, float(np.abs(theirs).max()))
    if labels:
        assert np.array_equal(logits.argmax(axis=1), theirs.argmax(axis=1))
    return network
