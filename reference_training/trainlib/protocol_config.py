"""The options of the evaluation protocols: linear probe, fine-tuning, nearest neighbours.

``None`` means "the run's own" for the data, "taken from the recipe of the data set" for the rest.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from trainlib.config import (
    ABOVE_ZERO,
    BELOW_ONE,
    COUNT,
    DATASETS,
    DOWNLOADABLE,
    NATURAL,
    POSITIVE,
    PRECISIONS,
    SEED,
    SHARE,
    WEIGHT,
    BaseRunConfig,
    ScheduleConfig,
    option,
)

THE_RUNS = "the run's"


@dataclass(frozen=True)
class SourceConfig:
    """data"""

    data: str | None = option(None, "data set to evaluate on", choices=DATASETS, shown=THE_RUNS)
    data_dir: str | None = option(None, "folder with the data", shown=THE_RUNS)
    download: bool = option(False, "let torchvision download CIFAR into --data-dir")
    workers: int = NATURAL.option(2, "processes that read and crop image files (imagefolder only)")


@dataclass(frozen=True)
class ProtocolDataConfig(SourceConfig):
    """data"""

    crop_min: float | None = ABOVE_ZERO.option(
        None, "smallest area of the random resized crop, as a share of the image"
    )
    flip: bool | None = option(None, "mirror training images at random")


@dataclass(frozen=True)
class DeviceConfig:
    """run"""

    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = option(
        "32", "32, or mixed precision with bf16 or 16 (fp16); heads of a probe stay in 32", choices=PRECISIONS
    )
    threads: int | None = NATURAL.option(None, "CPU threads, 0 for PyTorch's own choice")


@dataclass(frozen=True)
class ProtocolRunConfig(DeviceConfig):
    """run"""

    seed: int = SEED.option(0, "seed of the head, the order of the images and their augmentation")
    log_every: int | None = COUNT.option(None, "steps between two lines of the log")
    eval_every: int = COUNT.option(1, "epochs between two measurements on the held-out images")
    checkpoint_every: int = COUNT.option(1, "epochs between two checkpoints")
    tensorboard: bool = option(False, "write TensorBoard logs besides metrics.jsonl")


@dataclass(frozen=True)
class ProbeConfig:
    """probe"""

    feature: str | None = option(
        None, "feature to classify, such as cls or pooled; all: every one, in the same passes", shown="the first",
        metavar="NAME",
    )  # fmt: skip
    cached: bool = option(
        False, "compute the features once, without augmentation: much faster on a machine without GPU"
    )


@dataclass(frozen=True)
class ProbeOptimConfig(ScheduleConfig):
    """optimisation"""

    momentum: float = BELOW_ONE.option(0.9, "momentum of LARS")
    weight_decay: float = WEIGHT.option(0.0, "weight decay of the weights, not of the biases")
    trust: float | None = POSITIVE.option(
        None, "trust coefficient of LARS: a step changes the weights by this share of their norm times the rate; "
        "0.001 in the published runs, which have many more steps"
    )  # fmt: skip


class ProtocolConfig(BaseRunConfig):
    """What the protocols' configurations share."""

    def with_source(self, source: Any) -> Any:
        """This configuration with the data of the pre-training run ``source`` where none was given."""
        same = self.data.data in (None, source.data.data)
        data = dataclasses.replace(
            self.data,
            data=self.data.data or source.data.data,
            data_dir=self.data.data_dir or (source.data.data_dir if same else None),
        )
        return dataclasses.replace(self, data=data)


@dataclass(frozen=True)
class ProbeRunConfig(ProtocolConfig):
    """Everything that determines a linear probe, given an encoder."""

    probe: ProbeConfig = ProbeConfig()
    data: ProtocolDataConfig = ProtocolDataConfig()
    optim: ProbeOptimConfig = ProbeOptimConfig()
    run: ProtocolRunConfig = ProtocolRunConfig()

    recipes: ClassVar[dict[str, dict[str, Any]]]

    def validate(self) -> None:
        """Check the options of a linear probe."""
        from trainlib.validate import validate_options

        validate_options(self, 2, "batch norm needs more than one image")


_PROBE_CIFAR = {
    "epochs": 30, "batch": 256, "lr": 0.1, "trust": 0.05, "warmup_epochs": 3.0, "crop_min": 0.2, "flip": True,
    "log_every": 50, "threads": 0,
}  # fmt: skip
ProbeRunConfig.recipes = {
    "digits": {
        "epochs": 50, "batch": 128, "lr": 0.1, "trust": 0.4, "warmup_epochs": 5.0, "crop_min": 0.8, "flip": False,
        "log_every": 11, "threads": 1,
    },
    **dict.fromkeys(DOWNLOADABLE, _PROBE_CIFAR),
    "imagefolder": {
        "epochs": 90, "batch": 1024, "lr": 0.1, "trust": 0.001, "warmup_epochs": 10.0, "crop_min": 0.08,
        "flip": True, "log_every": 50, "threads": 0,
    },
}  # fmt: skip


@dataclass(frozen=True)
class FinetuneConfig:
    """fine-tuning; 0 or none switches a part off"""

    feature: str | None = option(
        None, "feature that the head sees, such as cls or pooled", shown="the first", metavar="NAME"
    )
    scratch: bool = option(
        False, "the control: the same network from fresh weights (layer decay is then off unless given)"
    )
    drop_path: float = BELOW_ONE.option(
        0.1, "share of the residual branches that is dropped in the last block"
    )
    randaugment: str | None = option(
        None, "RandAugment m9-mstd0.5-inc1; geometric: only its rotations, shears and shifts",
        choices=("full", "geometric", "none"),
    )  # fmt: skip
    mixup: float = WEIGHT.option(0.8, "alpha of mixup")
    cutmix: float = WEIGHT.option(1.0, "alpha of cutmix; used for every other batch if mixup is on too")
    erase: float | None = SHARE.option(None, "share of the images of which a rectangle is replaced by noise")
    smoothing: float = BELOW_ONE.option(0.1, "label smoothing")


@dataclass(frozen=True)
class FinetuneOptimConfig(ScheduleConfig):
    """optimisation"""

    lr: float | None = WEIGHT.option(
        None, "base learning rate, multiplied by batch/256; on digits with --scratch 0.004 unless given"
    )
    min_lr: float = WEIGHT.option(1e-6, "learning rate at the end of the cosine")
    weight_decay: float = WEIGHT.option(0.05, "AdamW weight decay; none on biases, norms and the CLS token")
    beta1: float = BELOW_ONE.option(0.9, "AdamW first moment")
    beta2: float = BELOW_ONE.option(0.999, "AdamW second moment")
    layer_decay: float | None = ABOVE_ZERO.option(
        None,
        "factor of the learning rate from each layer to the one below it",
        shown="0.65; 1 with --scratch",
    )


@dataclass(frozen=True)
class FinetuneRunConfig(ProtocolConfig):
    """Everything that determines a fine-tuning, given an encoder."""

    finetune: FinetuneConfig = FinetuneConfig()
    data: ProtocolDataConfig = ProtocolDataConfig()
    optim: FinetuneOptimConfig = FinetuneOptimConfig()
    run: ProtocolRunConfig = ProtocolRunConfig()

    recipes: ClassVar[dict[str, dict[str, Any]]]

    def recipe(self) -> dict[str, Any]:
        """The data set's values. Fresh layers have nothing to keep: all learn at one rate, on digits a lower one."""
        if not self.finetune.scratch:
            return super().recipe() | {"layer_decay": 0.65}
        own = {"lr": 4e-3} if self.data.data == "digits" else {}
        return super().recipe() | {"layer_decay": 1.0} | own

    def validate(self) -> None:
        """Check the options of a fine-tuning."""
        from trainlib.optim import peak_lr
        from trainlib.validate import require

        super().validate()
        optim, peak = self.optim, peak_lr(self.optim)
        require(
            optim.min_lr <= peak, "--min-lr",
            f"{optim.min_lr} is above the highest learning rate {peak:g}", "lower it or raise --lr",
        )  # fmt: skip
        require(
            optim.batch % 2 == 0 or not (self.finetune.mixup or self.finetune.cutmix), "--batch",
            f"mixing pairs the images of a batch, {optim.batch} is odd", "use an even number, or --mixup 0 --cutmix 0",
        )  # fmt: skip


_FINETUNE_CIFAR = {
    "epochs": 30, "batch": 128, "lr": 1e-3, "warmup_epochs": 3.0, "crop_min": 0.2, "flip": True,
    "randaugment": "full", "erase": 0.25, "log_every": 50, "threads": 0,
}  # fmt: skip
FinetuneRunConfig.recipes = {
    "digits": {
        "epochs": 50, "batch": 64, "lr": 1.6e-2, "warmup_epochs": 5.0, "crop_min": 0.8, "flip": False,
        "randaugment": "none", "erase": 0.0, "log_every": 11, "threads": 1,
    },
    **dict.fromkeys(DOWNLOADABLE, _FINETUNE_CIFAR),
    "imagefolder": {
        "epochs": 100, "batch": 1024, "lr": 5e-4, "warmup_epochs": 5.0, "crop_min": 0.08, "flip": True,
        "randaugment": "full", "erase": 0.25, "log_every": 50, "threads": 0,
    },
}  # fmt: skip


@dataclass(frozen=True)
class KnnConfig:
    """neighbours"""

    feature: str | None = option(
        None, "feature to compare, such as cls or pooled", shown="all", metavar="NAME"
    )
    temperature: float = POSITIVE.option(0.07, "a neighbour's vote weighs exp(cosine / temperature)")


@dataclass(frozen=True)
class KnnRunConfig(ProtocolConfig):
    """Everything that determines the nearest-neighbour accuracy, given an encoder."""

    knn: KnnConfig = KnnConfig()
    data: SourceConfig = SourceConfig()
    run: DeviceConfig = DeviceConfig()

    recipes: ClassVar[dict[str, dict[str, Any]]] = {}
