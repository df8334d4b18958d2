"""The typed configuration of a run: every option once, with its type, domain, default, help text and section.

The command line (``cli.py``) is generated from these dataclasses, and the resolved configuration is saved
with each run. A default of ``None`` means "taken from the recipe of the data set".
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

DATASETS = ("digits", "cifar10", "cifar100", "imagenette", "imagefolder")
DOWNLOADABLE = ("cifar10", "cifar100", "imagenette")
PRECISIONS = ("32", "bf16", "16")


def option(
    default: Any, help: str, *, choices: tuple[str, ...] | None = None, flag: str | None = None,
    shown: str | None = None, metavar: str | None = None, domain: Domain | None = None,
) -> Any:  # fmt: skip
    """A dataclass field that is also a command-line option; ``shown`` stands for its default in the help."""
    metadata = {"help": help, "choices": choices, "flag": flag, "shown": shown, "metavar": metavar}
    return field(default=default, metadata=metadata | {"domain": domain})


class Domain(NamedTuple):
    """The values that an option may have, and what to do about another one."""

    expected: str
    holds: Callable[[Any], bool]  # false for NaN, with which every comparison fails
    remedy: str = "choose another one"

    def option(self, default: Any, help: str, **others: Any) -> Any:
        """An option whose values lie in this domain."""
        return option(default, help, domain=self, **others)


COUNT = Domain("a whole number of at least 1", lambda value: value >= 1)
SEVERAL = Domain("a whole number of at least 2", lambda value: value >= 2)
NATURAL = Domain("a whole number of at least 0", lambda value: value >= 0)
SEED = Domain("a whole number from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)
WEIGHT = Domain("a finite number of at least 0", lambda value: 0 <= value < math.inf)
POSITIVE = Domain("a finite number above 0", lambda value: 0 < value < math.inf)
BELOW_ONE = Domain("a number in [0, 1)", lambda value: 0 <= value < 1, "use e.g. 0.9, or 0 for none")
ABOVE_ZERO = Domain("a share in (0, 1]", lambda value: 0 < value <= 1, "use e.g. 0.5, or 1 for all")
SHARE = Domain("a share in [0, 1]", lambda value: 0 <= value <= 1, "choose one between them")


@dataclass(frozen=True)
class DataConfig:
    """data"""

    data: str = option(
        "digits", "data set; digits (scikit-learn, 1,797 images) needs no files", choices=DATASETS
    )
    data_dir: str | None = option(
        None,
        "folder with the data: cifar10/cifar100/imagenette in torchvision's layout, imagefolder with train/ and val/",
    )
    download: bool = option(False, "let torchvision download CIFAR or Imagenette into --data-dir")
    image_size: int | None = COUNT.option(None, "side of the square training images in pixels")
    crop_min: float | None = ABOVE_ZERO.option(
        None, "smallest area of the random resized crop, as a share of the image"
    )
    flip: bool | None = option(None, "mirror training images at random")
    workers: int = NATURAL.option(2, "processes that read and crop image files (imagefolder only)")


@dataclass(frozen=True)
class ModelConfig:
    """model"""

    model: str | None = option(
        None,
        "size, as encoder width/depth/heads + decoder: mini 64/4/4 + 64/1/4, tiny 128/4/4 + 64/1/4, "
        "small 192/12/3 + 192/4/3, vit_small 384/12/6, vit_base 768/12/12, vit_large 1024/24/16, "
        "the last three + 512/8/16",
        choices=("mini", "tiny", "small", "vit_small", "vit_base", "vit_large"),
    )
    patch: int | None = COUNT.option(None, "side of a patch in pixels")
    width: int | None = COUNT.option(None, "encoder width, in place of the size's")
    depth: int | None = COUNT.option(None, "encoder blocks, in place of the size's")
    heads: int | None = COUNT.option(None, "encoder attention heads, in place of the size's")
    decoder_width: int | None = COUNT.option(None, "decoder width, in place of the size's")
    decoder_depth: int | None = COUNT.option(None, "decoder blocks, in place of the size's")
    decoder_heads: int | None = COUNT.option(None, "decoder attention heads, in place of the size's")


@dataclass(frozen=True)
class ScheduleConfig:
    """optimisation"""

    epochs: int | None = COUNT.option(None, "passes over the training images")
    batch: int | None = COUNT.option(None, "images per step")
    lr: float | None = WEIGHT.option(None, "base learning rate, multiplied by batch/256")
    warmup_epochs: float | None = WEIGHT.option(None, "epochs of linear warm-up before the per-step cosine")


@dataclass(frozen=True)
class OptimConfig(ScheduleConfig):
    """optimisation"""

    batch: int | None = COUNT.option(None, "images per step; the batch regularisers see all of them")
    weight_decay: float = WEIGHT.option(0.05, "AdamW weight decay; none on biases and norms")
    beta1: float = BELOW_ONE.option(0.9, "AdamW first moment")
    beta2: float = BELOW_ONE.option(0.95, "AdamW second moment")


@dataclass(frozen=True)
class RunConfig:
    """run"""

    seed: int = SEED.option(0, "seed of the weights, the order of the images, the crops and the masks")
    device: str = option("auto", "where to train", choices=("auto", "cpu", "cuda", "mps"))
    precision: str | None = option(
        None,
        "32, or mixed precision with bf16 or 16 (fp16)",
        choices=PRECISIONS,
        shown="bf16 on CUDA, else 32",
    )
    compile: bool | None = option(
        None,
        "compile the networks: a start of about a minute for steps of a half or a third",
        shown="on CUDA",
    )
    tf32: bool = option(
        True, "let CUDA multiply float32 matrices of the networks with TF32's 10-bit mantissa"
    )
    threads: int | None = NATURAL.option(
        None, "CPU threads, 0 for PyTorch's own choice; a seed gives equal bits for equal numbers of threads"
    )
    log_every: int | None = COUNT.option(None, "steps between two lines of the training log")
    eval_every: int | None = COUNT.option(
        None, "epochs between two measurements of the effective rank on held-out images"
    )
    rank_images: int = COUNT.option(2048, "held-out images on which the effective ranks are measured")
    checkpoint_every: int = COUNT.option(1, "epochs between two checkpoints")
    tensorboard: bool = option(True, "write TensorBoard logs besides metrics.jsonl")


@dataclass(frozen=True)
class MaskedConfig:
    """method"""

    method: str = option(
        "mmae",
        "MAE, U-MAE (uniformity), M-MAE (total coding rate), entmae (matrix entropy in its place), mimae (MI-MAE "
        "style: several disjoint masks of each image, information losses) or mae4 (the same masks without)",
        choices=("mae", "umae", "mmae", "entmae", "mimae", "mae4"),
    )
    recipe: str | None = option(
        None,
        "fill the options that are not given from the paper's ImageNet-1K recipe for ViT-B or ViT-L; needs "
        "--data imagefolder",
        choices=("paper_vit_b", "paper_vit_l"),
    )
    lambda_: float = WEIGHT.option(
        0.01,
        "weight of the regulariser (U-MAE, M-MAE, entmae). The released code's gather divides its gradient by the "
        "number of processes: for its effective weight on N devices give lambda/N, or --gather local on N processes",
        flag="lambda",
    )
    mu: float | None = WEIGHT.option(
        None, "mu of the total coding rate (M-MAE); the paper uses 1 for ViT-B and 3 for ViT-L", shown="1.0"
    )
    tcr_scale: str = option(
        "code",
        "code: log det(I + mu/d F'F), as released; paper: log det(mu I + F'F), as printed, a far stronger term",
        choices=("code", "paper"),
    )
    centering: bool = option(False, "centre the normalised features over the batch before the coding rate")
    mask_ratio: float = option(0.75, "share of the patches that is hidden from the encoder")
    norm_pix: bool = option(True, "reconstruct patches normalised by their own mean and variance")
    double_norm: bool = option(
        False,
        "pass the CLS feature through the final LayerNorm a second time before the regulariser, as released",
    )
    gather: str = option(
        "exact",
        "with several processes: exact, the regulariser's gradient is that of one process; local, it is divided by "
        "their number, as released",
        choices=("exact", "local"),
    )
    masks: int = SEVERAL.option(4, "disjoint masks of each image, which together show it once (mimae, mae4)")
    infonce_weight: float = WEIGHT.option(
        0.1, "weight of the InfoNCE loss between masks (mimae); the paper's weights are not known to us"
    )
    club_weight: float = WEIGHT.option(
        1e-3, "weight of the CLUB bound on the information between latent and visible input (mimae)"
    )
    nll_weight: float = WEIGHT.option(
        1.0, "weight of the likelihood that trains CLUB's conditional alone (mimae)"
    )
    temperature: float = POSITIVE.option(0.1, "temperature of the InfoNCE loss (mimae)")

    @property
    def several(self) -> bool:
        """Whether each image is seen under several masks."""
        return self.method in ("mimae", "mae4")


NAMES = {
    "mae": "MAE",
    "mae4": "MAE, several masks",
    "umae": "U-MAE",
    "mmae": "M-MAE",
    "entmae": "Ent-MAE",
    "mimae": "MI-MAE style",
}


class BaseRunConfig:
    """What the programs need to know of a run's configuration besides its sections."""

    recipes: ClassVar[dict[str, dict[str, Any]]]  # by data set, the options that are None by default
    compared: ClassVar[tuple[str, ...]]  # the methods of --compare

    def recipe(self) -> dict[str, Any]:
        """The values of the options that were not given."""
        return dict(self.recipes[self.data.data])

    def label(self) -> str:
        """The name of the method with the settings that distinguish it."""
        raise NotImplementedError

    def validate(self) -> None:
        """Check everything that can be checked before the data are read; to be called on a resolved configuration."""
        from trainlib.validate import validate_options

        validate_options(self)

    def build(self, channels: int, classes: int) -> Any:
        """The method that is named here, with fresh weights."""
        raise NotImplementedError

    def with_seed(self, seed: int) -> Any:
        """This configuration for another seed."""
        return dataclasses.replace(self, run=dataclasses.replace(self.run, seed=seed))

    def with_method(self, method: str) -> Any:
        """This configuration for another method of a comparison."""
        return dataclasses.replace(self, method=dataclasses.replace(self.method, method=method))


@dataclass(frozen=True)
class MaskedRunConfig(BaseRunConfig):
    """Everything that determines one masked pre-training run."""

    method: MaskedConfig = MaskedConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    compared: ClassVar[tuple[str, ...]] = ("mae", "umae", "mmae")

    def recipe(self) -> dict[str, Any]:
        """The data set's recipe, and in its place what ``--recipe`` says."""
        named = {} if self.method.recipe is None else PAPER_RECIPES[self.method.recipe]
        return {"mu": 1.0} | super().recipe() | named

    def label(self) -> str:
        """The name in tables, such as ``M-MAE 0.01``."""
        method, name = self.method, self.method.method
        label = NAMES[name]
        if name == "mae":
            return label
        if name == "mae4":
            return f"MAE, {method.masks} masks"
        if name == "mimae":
            label += f" {method.infonce_weight:g}/{method.club_weight:g}"
            return label if method.masks == 4 else f"{label}, {method.masks} masks"
        label += f" {method.lambda_:g}"
        if name == "mmae":
            label += "" if method.mu == 1 else f" mu {method.mu:g}"
            label += "" if method.tcr_scale == "code" else " paper scale"
            label += " centred" if method.centering else ""
        label += " local gather" if method.gather == "local" else ""
        return label + (" double norm" if method.double_norm else "")

    def validate(self) -> None:
        """Check the options, alone and against the model."""
        from trainlib.validate import validate_masked

        validate_masked(self)

    def build(self, channels: int, classes: int) -> Any:
        """The masked autoencoder with the regulariser, or the several masks, that the method needs."""
        from trainlib.mask_information import MaskInformationMethod
        from trainlib.masked import MaskedMethod

        return (MaskInformationMethod if self.method.several else MaskedMethod)(self, channels, classes)


_CIFAR = {
    "image_size": 32, "patch": 8, "model": "tiny", "epochs": 12, "batch": 512, "lr": 5e-4, "warmup_epochs": 1.0,
    "crop_min": 0.2, "flip": True, "log_every": 10, "eval_every": 1, "threads": 0,
}  # fmt: skip
MaskedRunConfig.recipes = {
    "digits": {
        "image_size": 8, "patch": 2, "model": "mini", "epochs": 250, "batch": 128, "lr": 3e-3, "warmup_epochs": 12.5,
        "crop_min": 0.8, "flip": False, "log_every": 11, "eval_every": 5, "threads": 1,
    },
    **dict.fromkeys(("cifar10", "cifar100"), _CIFAR),
    "imagenette": _CIFAR | {"image_size": 96, "patch": 12, "epochs": 60, "warmup_epochs": 6.0},
    "imagefolder": {
        "image_size": 224, "patch": 16, "model": "vit_base", "epochs": 200, "batch": 1024, "lr": 1.5e-4,
        "warmup_epochs": 40.0, "crop_min": 0.2, "flip": True, "log_every": 20, "eval_every": 1, "threads": 0,
    },
}  # fmt: skip

# M-MAE's pre-training on ImageNet-1K (Tan et al. 2024): the recipe of image folders, and what the network adds to it.
PAPER_RECIPES: dict[str, dict[str, Any]] = {
    "paper_vit_b": {"model": "vit_base", "mu": 1.0},
    "paper_vit_l": {"model": "vit_large", "mu": 3.0},
}

# Options that do not change what is computed, so that a run may be resumed with other values.
FREE_ON_RESUME = (
    "data_dir", "download", "workers", "device", "compile", "tf32", "threads", "log_every", "checkpoint_every",
    "tensorboard",
)  # fmt: skip


def sections(config: Any) -> list[tuple[str, Any]]:
    """Pairs of section name and section of a run configuration, in the order of ``--help``."""
    return [(f.name, getattr(config, f.name)) for f in dataclasses.fields(config)]


def flag_of(item: dataclasses.Field[Any]) -> str:
    """The command-line flag of a configuration field, such as ``--mask-ratio``."""
    return "--" + (item.metadata.get("flag") or item.name.replace("_", "-"))


def resolve(config: Any) -> Any:
    """The configuration with every ``None`` filled in that the device or the recipe of the data set knows."""
    import torch

    device = config.run.device
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    recipe = {"precision": "bf16" if cuda else "32", "compile": cuda} | config.recipe()
    if config.optim.epochs is not None:  # the warm-up keeps its share of the training
        recipe["warmup_epochs"] *= config.optim.epochs / recipe["epochs"]
    filled = {}
    for name, section in sections(config):
        missing = {
            f.name: recipe[f.name]
            for f in dataclasses.fields(section)
            if f.name in recipe and getattr(section, f.name) is None
        }
        filled[name] = dataclasses.replace(section, **missing)
    return dataclasses.replace(config, **filled)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain dictionaries, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """The resolved configuration of class ``cls`` from ``to_dict``'s output; unknown names raise ``ValueError``.

    A missing option has its default, or its recipe's: the run is older than the option.
    """
    if not isinstance(values, dict):
        raise ValueError("it is not a table of sections")
    parts = {}
    for name, section in sections(cls()):
        given, types = values.get(name), typing.get_type_hints(type(section))
        known = {f.name: f for f in dataclasses.fields(section)}
        if not isinstance(given, dict) or not given.keys() <= known.keys():
            raise ValueError(f"section '{name}' does not have the expected options")
        for key, value in given.items():
            choices, allowed = known[key].metadata["choices"], typing.get_args(types[key]) or (types[key],)
            fits = type(value) in allowed or (type(value) is int and float in allowed)  # True is no number
            if not fits or (choices and value is not None and value not in choices):
                raise ValueError(f"{flag_of(known[key])} cannot be {value!r}")
        parts[name] = type(section)(**given)
    return resolve(cls(**parts))


def differences(ours: Any, theirs: Any) -> list[tuple[str, Any, Any]]:
    """Options (flag, our value, their value) that differ and that change what a run computes."""
    found = []
    for name, section in sections(ours):
        other = getattr(theirs, name)
        for f in dataclasses.fields(section):
            mine, yours = getattr(section, f.name), getattr(other, f.name)
            if mine != yours and f.name not in FREE_ON_RESUME:
                found.append((flag_of(f), mine, yours))
    return found
