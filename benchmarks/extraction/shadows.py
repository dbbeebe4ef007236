"""What an attacker who knows the defence does at home: a victim of its own, defended and not.

It has the defence's code and settings, the victim's architecture and bit width, and labelled
public images of another set, fitted to the victim's shape; not the victim's data or seed. It
trains plain QAT and the defended variant there, queries both with the images of its pool, and gets
pairs of a defended and an undefended response. Both networks are its own: no query is spent.
"""

from dataclasses import replace

from benchmarks.extraction.specs import VictimSpec
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.data import dataset_info
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.attack_spec import AttackSpec, QuerySet
from divqat_brevitas.extraction.defences import DefendedPredictor
from divqat_brevitas.extraction.learners.recovery import ShadowPairs

# Other objects than the victim's, but as many classes; a subset takes as many of the first.
_SETS = {
    "cifar10": "fashion-mnist",
    "fashion-mnist": "mnist",
    "mnist": "fashion-mnist",
    "digits": "mnist5k",
    "kmnist": "fashion-mnist",
    "svhn": "fashion-mnist",
}
_SEED = 1000  # far from the victims' own


def has_shadow(dataset: str) -> bool:
    """Whether a public set is chosen for a shadow of a victim on ``dataset``.

    Example:
        >>> has_shadow("cifar10:0-4"), has_shadow("cifar100")
        (True, False)
    """
    return dataset.partition(":")[0] in _SETS


def shadow_of(spec: VictimSpec, shape: tuple[int, int, int]) -> VictimSpec:
    """The attacker's own edition of a victim, trained half as long: its sets are easier.

    Raises:
        InputError: no public set is chosen for the victim's.

    Example:
        >>> spec = VictimSpec(dataset="cifar10:0-4", model="cifar-cnn", variant="divqat-nasty")
        >>> shadow_of(spec, (3, 32, 32)).dataset
        'fashion-mnist:0-4'
    """
    base = spec.dataset.partition(":")[0]
    if not has_shadow(spec.dataset):
        raise InputError(
            f"no shadow set is chosen for {spec.dataset!r}: learners that need shadow pairs can be "
            f"tried on {', '.join(_SETS)}."
        )
    classes = len(dataset_info(spec.dataset).classes)
    every = len(dataset_info(_SETS[base]).classes)
    return replace(
        spec,
        dataset=_SETS[base] if classes == every else f"{_SETS[base]}:0-{classes - 1}",
        seed=_SEED + spec.seed,
        float_epochs=max(1, spec.float_epochs // 2),
        quant_epochs=max(1, spec.quant_epochs // 2),
        guard=1.0,  # an attacker does not mind how well its shadow does
        shape=shape,
    )


def shadow_pairs(
    spec: VictimSpec, attack: AttackSpec, queries: QuerySet, store: VictimStore
) -> ShadowPairs:
    """Pairs for the attacker's recovery; its shadow victims are trained now if they are not there.

    Raises:
        InputError: an attack that makes its own images has none to ask the shadows.
    """
    if queries.images is None:
        raise InputError(
            f"{attack.attack} makes its own images, so {attack.learner!r} has nothing to ask its "
            "shadow victims. Take an attack on a pool."
        )
    shadow = shadow_of(spec, queries.shape)
    clean = shadow if shadow.variant == "float" else shadow.twin
    defence = store.defender(shadow).defence(attack.defence, seed=attack.seed)
    return ShadowPairs.of_models(
        DefendedPredictor(store.get(shadow).predictor, defence),
        store.get(clean).predictor,
        queries.images,
        oracle=attack.oracle,
    )
