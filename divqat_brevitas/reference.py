"""The frozen full-precision reference that DivQAT diverges from."""

from torch import nn

from divqat_brevitas.copies import deep_copy


def freeze_reference(model: nn.Module) -> nn.Module:
    """A frozen copy of ``model``: evaluation mode for good, no gradient ever.

    The copy stays in evaluation mode even when a parent module is switched to training, so
    its batch-norm statistics never move; the model passed in is not changed.

    Args:
        model: the trained float network.

    Raises:
        InputError: a network that cannot be copied, with the remedy.

    Example:
        >>> reference = freeze_reference(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
        >>> reference.train()[0][1].training
        False
    """
    reference = deep_copy(model).eval().requires_grad_(False)
    return _Frozen(reference).eval()


class _Frozen(nn.Sequential):
    """Holds one network and ignores requests to train it."""

    def train(self, mode: bool = True) -> "_Frozen":
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "_Frozen":
        return super().requires_grad_(False)
