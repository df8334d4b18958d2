"""The options of joint-embedding pre-training. What depends on the method (None here) stands in the method's file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trainlib.config import (
    BELOW_ONE,
    COUNT,
    NATURAL,
    POSITIVE,
    SEVERAL,
    SHARE,
    WEIGHT,
    BaseRunConfig,
    DataConfig,
    OptimConfig,
    RunConfig,
    option,
)

METHODS = (
    "simclr", "spectral", "barlow_twins", "vicreg", "matrix_ssl", "byol", "simsiam", "dino", "swav", "deepcluster",
    "simclr_er", "byol_er", "dino_er",
)  # fmt: skip
AUGMENTATIONS = ("symmetric", "asymmetric", "weak", "vicreg")
OPTIMIZERS = ("adamw", "sgd", "lars")
BACKBONES = ("convnet", "resnet18")
OWN = "the method's"


@dataclass(frozen=True)
class SiameseConfig:
    """method"""

    method: str = option("simclr", "what is minimised", choices=METHODS)
    augmentation: str | None = option(None, "how the two views are made", choices=AUGMENTATIONS, shown=OWN)
    temperature: float | None = POSITIVE.option(
        None,
        "temperature of the similarities (simclr, swav, deepcluster) or of the student (dino)",
        shown=OWN,
    )
    lambda_: float | None = POSITIVE.option(
        None, "weight of the off-diagonal terms (spectral, barlow_twins)", flag="lambda", shown=OWN
    )
    ema: float | None = SHARE.option(
        None,
        "share of the target network that each step keeps, rising to 1 (byol, dino, matrix_ssl)",
        shown=OWN,
    )
    kappa: float | None = POSITIVE.option(
        None, "concentration of the von Mises-Fisher kernel (simclr_er, byol_er)", shown=OWN
    )
    gamma: float | None = POSITIVE.option(
        None, "weight of the alignment of covariances (matrix_ssl)", shown=OWN
    )
    prototypes: int | None = COUNT.option(None, "prototypes or classes (swav, deepcluster, dino)", shown=OWN)
    queue: int | None = NATURAL.option(None, "earlier projections that join the assignment (swav)", shown=OWN)
    instrument: bool = option(
        True, "measure the information of the batch's projections for each line of the training log"
    )
    knn_images: int = COUNT.option(
        10_000, "training images among which neighbours are sought during training"
    )


@dataclass(frozen=True)
class SiameseModelConfig:
    """model"""

    backbone: str | None = option(
        None, "ConvNet of four stages, or ResNet-18 with a CIFAR stem", choices=BACKBONES
    )
    width: int | None = COUNT.option(
        None, "channels of the ConvNet's first stage; its features are 8 times as wide"
    )
    projector_hidden: int | None = COUNT.option(None, "width of the hidden layers of projector and predictor")
    projector_width: int | None = SEVERAL.option(
        None, "width of the projections, equal for all methods: their information is at most its logarithm"
    )


@dataclass(frozen=True)
class SiameseOptimConfig(OptimConfig):
    """optimisation"""

    lr: float | None = WEIGHT.option(None, "base learning rate, multiplied by batch/256", shown=OWN)
    weight_decay: float | None = WEIGHT.option(None, "weight decay; none on biases and norms", shown=OWN)
    beta2: float = BELOW_ONE.option(0.999, "AdamW second moment")
    optimizer: str | None = option(None, "optimiser; lr and weight decay follow it", choices=OPTIMIZERS)
    momentum: float = BELOW_ONE.option(0.9, "momentum of SGD and LARS")


@dataclass(frozen=True)
class SiameseRunConfig(BaseRunConfig):
    """Everything that determines one joint-embedding run."""

    method: SiameseConfig = SiameseConfig()
    data: DataConfig = field(default_factory=DataConfig)
    model: SiameseModelConfig = SiameseModelConfig()
    optim: SiameseOptimConfig = SiameseOptimConfig()
    run: RunConfig = field(default_factory=RunConfig)

    recipes: ClassVar[dict[str, dict[str, Any]]]
    compared: ClassVar[tuple[str, ...]] = ("simclr", "barlow_twins", "byol")

    def recipe(self) -> dict[str, Any]:
        """What the data set sets, then what the method sets (its options, and the rates of its optimiser)."""
        from trainlib.siamese.registry import METHOD_CLASSES
        from trainlib.views import AUGMENTATIONS

        recipe = dict(self.recipes[self.data.data])
        method = METHOD_CLASSES[self.method.method].settings
        rates = method.rates[self.optim.optimizer or recipe["optimizer"]]
        recipe |= {"lr": rates.lr, "weight_decay": rates.weight_decay}
        width = self.model.projector_width or recipe["projector_width"]
        recipe |= {"augmentation": method.augmentation} | method.defaults(width)
        views = AUGMENTATIONS[self.method.augmentation or method.augmentation]
        recipe.setdefault("crop_min", views[0].crop_min)
        return recipe

    def label(self) -> str:
        """The method's name with the options that differ from its own, such as ``SimCLR temperature 0.3``."""
        from trainlib.siamese.registry import METHOD_CLASSES

        method = METHOD_CLASSES[self.method.method].settings
        own = {"augmentation": method.augmentation} | method.defaults(self.model.projector_width)
        changed = [
            f"{name.rstrip('_')} {value}" if isinstance(value, str) else f"{name.rstrip('_')} {value:g}"
            for name, standard in own.items()
            if (value := getattr(self.method, name)) != standard
        ]
        return " ".join([method.label, *changed])

    def validate(self) -> None:
        """Check the options, of which a method has only its own."""
        from trainlib.siamese.registry import METHOD_CLASSES
        from trainlib.validate import require, validate_options

        validate_options(self, 2, "a batch of 1 has nothing to be compared with")
        method = self.method.method
        own = METHOD_CLASSES[method].settings
        for item in sorted(name for name in METHOD_OPTIONS if not own.has(name)):
            having = ", ".join(sorted(n for n, c in METHOD_CLASSES.items() if c.settings.has(item)))
            given = getattr(self.method, item) is not None
            require(not given, "--" + item.rstrip("_"), f"{method} has no such option", f"it is for {having}")

    def build(self, channels: int, classes: int) -> Any:
        """The method, of its own class."""
        from trainlib.siamese.registry import METHOD_CLASSES

        return METHOD_CLASSES[self.method.method](self, channels, classes)

    def with_method(self, method: str) -> Any:
        """This configuration for another method of a comparison, without the options that it does not have."""
        from trainlib.siamese.registry import METHOD_CLASSES

        foreign = {name for name in METHOD_OPTIONS if not METHOD_CLASSES[method].settings.has(name)}
        changed = dataclasses.replace(self.method, method=method, **dict.fromkeys(foreign))
        return dataclasses.replace(self, method=changed)


# Options that some methods have and others have not.
METHOD_OPTIONS = {"temperature", "lambda_", "ema", "kappa", "gamma", "prototypes", "queue"}

_CIFAR = {
    "image_size": 32, "flip": True, "backbone": "convnet", "width": 16, "projector_hidden": 512,
    "projector_width": 128, "optimizer": "adamw", "epochs": 16, "batch": 256, "warmup_epochs": 1.0,
    "log_every": 10, "eval_every": 1, "threads": 0,
}  # fmt: skip
_PHOTOGRAPHS = _CIFAR | {
    "image_size": 96, "backbone": "resnet18", "projector_hidden": 2048, "projector_width": 256, "epochs": 100,
    "warmup_epochs": 5.0,
}  # fmt: skip
SiameseRunConfig.recipes = {
    "digits": {
        "image_size": 8, "flip": False, "crop_min": 0.4, "backbone": "convnet", "width": 16, "projector_hidden": 256,
        "projector_width": 64, "optimizer": "adamw", "epochs": 100, "batch": 256, "warmup_epochs": 5.0,
        "log_every": 5, "eval_every": 5, "threads": 1,
    },
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "imagenette": _PHOTOGRAPHS,
    "imagefolder": _PHOTOGRAPHS,
}  # fmt: skip
