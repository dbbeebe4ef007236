"""Class names of the classic sets, in the order of their labels."""

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
KMNIST = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = tuple(_CIFAR100.split())
GTSRB = (
    "20 km/h", "30 km/h", "50 km/h", "60 km/h", "70 km/h", "80 km/h", "end of 80 km/h",
    "100 km/h", "120 km/h", "no passing", "no passing for trucks", "priority at next crossing",
    "priority road", "yield", "stop", "no vehicles", "no trucks", "no entry", "danger",
    "curve left", "curve right", "double curve", "bumpy road", "slippery road",
    "road narrows right", "road works", "traffic signals", "pedestrians", "children", "bicycles",
    "snow", "wild animals", "end of limits", "turn right", "turn left", "straight on",
    "straight or right", "straight or left", "keep right", "keep left", "roundabout",
    "end of no passing", "end of no passing for trucks",
)  # fmt: skip
