"""Defences of one cost against a naive attacker and one that knows them; argument: 01's file."""

import os
import sys

from divqat_brevitas.data import load, query_pool
from divqat_brevitas.extraction import Victim, accuracy, make_attack, make_learner
from divqat_brevitas.extraction.defences import calibrate, cost_of, family, make_defence
from fpga_flow import load_engine

BUDGET, EPOCHS = int(os.environ.get("BUDGET", "200")), int(os.environ.get("EPOCHS", "15"))
engine = load_engine(sys.argv[1] if len(sys.argv) > 1 else "digits.onnx", engine="integer")
validation = load("digits", "val")[0].astype("float32") / 255
images, labels = load("digits", "test")
x = images.astype("float32") / 255
pool = query_pool("in", "digits", BUDGET, seed=0)

specs = ["none", "top1"]
answers = Victim(engine, oracle="soft", budget=len(validation)).query(validation)
for name in ("reverse-sigmoid", "noise"):  # as strong as moves the answers by 0.2 on average
    strength = calibrate(family(name, seed=0), answers, validation, 0.2).strength
    specs.append(f"{name}:{strength:.4g}")

for spec in specs:
    defence = make_defence(spec, seed=0)
    l1 = cost_of(defence, validation, answers).l1
    clones = {}
    for learner in ("soft", "argmax"):  # trust the responses, or only their label
        attack = make_attack(
            "knockoff-random", make_learner(learner, surrogate="compact", epochs=EPOCHS), seed=0
        )
        victim = Victim(engine, oracle="soft", budget=BUDGET, defence=make_defence(spec, seed=0))
        clones[learner] = accuracy(attack.run(victim, pool).clone, x, labels)
    best = max(clones, key=clones.__getitem__)
    print(
        f"{spec}: cost {l1:.2f}, clone {clones['soft']:.1%}, "
        f"adaptive {clones[best]:.1%} by {best!r}"
    )
