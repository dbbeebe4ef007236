"""The proxies of DivQAT layers, and the export handlers that know them.

Brevitas 0.13 exports the float weight and says "round to nearest", whatever the quantizer
did: any other rounding exports silently wrong integers. Our handler exports the values the
layer really uses, as a constant in front of a plain ``Quant`` node, which is idempotent on
them. Brevitas finds handlers by exact type, hence a proxy class of our own.
"""

from typing import Any

from brevitas.export.onnx.qonnx.handler import (
    BrevitasActQuantProxyHandler,
    BrevitasWeightQuantProxyHandler,
)
from brevitas.export.onnx.qonnx.manager import QONNXManager
from brevitas.proxy import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from torch import Tensor

from divqat_brevitas.errors import InputError
from divqat_brevitas.quant.training_step import Rectified


class DivQATWeightQuantProxy(WeightQuantProxyFromInjector):  # type: ignore[misc]
    """Weight proxy of the DivQAT quantizers; behaves as Brevitas' own."""


class DivQATWeightQuantHandler(BrevitasWeightQuantProxyHandler):  # type: ignore[misc]
    """QONNX export of the quantized weight values themselves."""

    handled_layer = DivQATWeightQuantProxy

    def prepare_for_export(self, module: Any) -> None:
        """Store the quantized values of the one layer that owns this quantizer.

        Raises:
            InputError: several layers share the quantizer, so no single constant is right.
        """
        if not module.is_quant_enabled:
            return
        if len(module.tracked_module_list) != 1:
            raise InputError(
                f"a weight quantizer is shared by {len(module.tracked_module_list)} layers, which "
                "cannot be exported exactly. Give each layer its own: pass the quantizer class, "
                "not another layer's weight_quant."
            )
        super().prepare_for_export(module)
        self.values = module.tracked_module_list[0].quant_weight().value.detach()

    def symbolic_execution(self, x: Tensor) -> Any:
        """Emit ``Quant`` on the stored values; the float weight ``x`` is not exported."""
        return super().symbolic_execution(self.values)


class DivQATActQuantProxy(ActQuantProxyFromInjector):  # type: ignore[misc]
    """Activation proxy of the DivQAT quantizers; in training it leaves a ReLU to the quantizer."""

    def init_tensor_quant(self) -> None:
        """As Brevitas' own."""
        super().init_tensor_quant()
        pair: Any = getattr(self, "fused_activation_quant_proxy", None)
        if pair is not None:
            self.fused_activation_quant_proxy = Rectified(pair.activation_impl, pair.tensor_quant)

    def _load_from_state_dict(self, state: Any, prefix: str, *more: Any) -> None:
        held = getattr(self, "fused_activation_quant_proxy", None)
        super()._load_from_state_dict(state, prefix, *more)
        # Brevitas makes the quantizer anew here. A scale that is loaded has to stay the parameter
        # that it is: other quantizers may share it, and an optimizer may train it.
        if held is not None and any(k.startswith(f"{prefix}fused_activation") for k in state):
            self.fused_activation_quant_proxy = held


class DivQATActQuantHandler(BrevitasActQuantProxyHandler):  # type: ignore[misc]
    """QONNX export as of Brevitas' own proxy."""

    handled_layer = DivQATActQuantProxy


def register_export_handlers() -> None:
    """Make Brevitas' QONNX exporters (TorchScript and dynamo) know our proxies; idempotent."""
    for handler in (DivQATWeightQuantHandler, DivQATActQuantHandler):
        if handler not in QONNXManager.handlers:
            QONNXManager.handlers.append(handler)
