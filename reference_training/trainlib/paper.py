"""What each figure and table of *Information Flow in Self-Supervised Learning* (Tan et al. 2024) needs, by scale.

``digits`` and ``cifar-small`` are for a CPU, with fewer epochs and smaller networks than the paper's; ``cifar-medium``
is for ten minutes on a card, where the masked runs of a figure or table are trained together (``fleet/``), and
``cifar-long`` likewise, with the network of ``cifar-small`` and a hundred epochs. ``imagenette`` is the same network on
photographs of 48 x 48 pixels, in as many patches, for two hours of a CPU core.
``cifar-full`` and ``imagenet`` are the paper's recipes, or what is known of them, for a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

MASKED, SIAMESE = "pretrain_mmae.py", "pretrain_siamese.py"
PROBE, FINETUNE, KNN = "linear_probe.py", "finetune.py", "knn.py"
MUS = (0.1, 0.5, 0.75, 1.0, 1.25, 1.5, 3.0)  # Table 2
TEMPERATURES = (0.3, 0.5, 0.7)  # Figure 3
LAMBDA = ("--lambda", "0.01")
PROCESSES = 8  # of the published runs
SMALL_EMA = 0.8  # our choice, against 0.99 (BYOL) and more (DINO)


class Training(NamedTuple):
    """One row of a table: a program with its options but for seed, data and place, and what follows it."""

    title: str  # in tables and figures
    name: str  # of the folder, equal wherever the run is the same
    program: str
    options: tuple[str, ...]
    epochs: int
    evaluations: tuple[tuple[str, tuple[str, ...]], ...] = ()  # programs and options


class What(NamedTuple):
    """A figure or a table: the runs, the figures to draw of them, the columns of its table."""

    title: str
    rows: tuple[Training, ...]
    figures: tuple[int, ...]
    columns: str  # the kind of columns, as report.py knows them
    swept: bool = False  # over mu: a further picture


class Scale(NamedTuple):
    """Options that all runs of a scale share, by kind of run, and epochs by what they are for."""

    masked: tuple[str, ...]
    siamese: tuple[str, ...]
    probe: tuple[str, ...]
    finetune: tuple[str, ...]
    epochs: dict[str, int]
    small_batch: int = 64  # for er
    seeds: int = 1
    shape: tuple[int, int] = (1024, 768)  # batch and width of the masked runs
    most: int | None = None  # epochs that minutes may be filled with
    data: str | None = None  # the data set; without one that of CIFAR which the figure or table is of
    together: bool = False  # whether the masked runs of a figure or table are trained in one process
    warmup: tuple[
        tuple[str, float], ...
    ] = ()  # share of the epochs by kind of run, where the recipe has another


OF_SCALE = {
    "digits": Scale(
        (), (), ("--feature", "all"), (),
        {"masked": 250, "table2": 250, "mimae": 100, "siamese": 100, "er": 100}, small_batch=32, seeds=3,
        shape=(128, 64), data="digits",
    ),
    "cifar-small": Scale(
        (), ("--precision", "bf16"), ("--feature", "all", "--cached"), ("--epochs", "4"),
        {"masked": 12, "table2": 6, "mimae": 6, "siamese": 16, "er": 4}, shape=(512, 128),
    ),
    "cifar-medium": Scale(
        ("--model", "small", "--patch", "4", "--decoder-width", "128", "--decoder-depth", "2", "--decoder-heads", "2",
         "--batch", "512", "--lr", "5e-4", "--precision", "bf16"),
        ("--backbone", "resnet18", "--precision", "bf16", "--eval-every", "5", "--checkpoint-every", "5"),
        ("--feature", "all", "--cached", "--precision", "bf16"), ("--epochs", "20", "--precision", "bf16"),
        {"masked": 40, "table2": 20, "mimae": 20, "siamese": 60, "er": 30}, seeds=5, shape=(512, 192),
        together=True, warmup=(("masked", 0.1),),
    ),
    "cifar-long": Scale(
        ("--precision", "bf16"), ("--precision", "bf16"), ("--feature", "all", "--cached"), ("--epochs", "20"),
        {"masked": 100, "table2": 50, "mimae": 50, "siamese": 100, "er": 50}, seeds=5, shape=(512, 128),
        most=100, together=True, warmup=(("masked", 0.1),),
    ),
    "imagenette": Scale(
        ("--image-size", "48", "--patch", "12"), (), ("--feature", "all", "--cached"), ("--epochs", "20"),
        {"masked": 60, "table2": 30, "mimae": 30, "siamese": 60, "er": 30}, seeds=5, shape=(512, 128),
        most=200, data="imagenette", together=True, warmup=(("masked", 0.1),),
    ),
    "cifar-full": Scale(
        ("--model", "vit_base", "--patch", "4", "--batch", "1024", "--lr", "1.5e-4", "--precision", "bf16",
         "--eval-every", "10", "--checkpoint-every", "10"),
        ("--backbone", "resnet18", "--projector-hidden", "2048", "--projector-width", "256", "--optimizer", "lars",
         "--precision", "bf16", "--eval-every", "10", "--checkpoint-every", "10"),
        ("--feature", "all", "--epochs", "90", "--precision", "bf16"),
        ("--epochs", "100", "--batch", "1024", "--lr", "5e-4", "--precision", "bf16"),
        {"masked": 1000, "table2": 200, "mimae": 400, "siamese": 1000, "er": 200},
        warmup=(("masked", 0.1), ("siamese", 0.01)),
    ),
    "imagenet": Scale(
        ("--precision", "bf16", "--workers", "16"), (),
        ("--batch", "8192", "--precision", "bf16", "--workers", "16"),
        ("--precision", "bf16", "--workers", "16"),
        {"masked": 200, "table2": 200, "mimae": 400}, data="imagefolder",
    ),
}  # fmt: skip
SCALES = tuple(OF_SCALE)
PUBLISHED_OPTIONS = {  # of single methods, at cifar-full; the programs' own defaults are for small recipes
    "dino": ("--prototypes", "4096", "--ema", "0.9995"),
    "dino_er": ("--prototypes", "4096", "--ema", "0.9995"),
}
# The data set of each figure and table in the paper, for the scales of CIFAR.
ON_CIFAR100 = ("figure4", "table3", "strength", "matched")
NOT_ON_IMAGENET = {
    "figure1": "Figures 1, 2 and 5 are of CIFAR-10", "figure3": "Figure 3 is of CIFAR-10",
    "er": "two views are implemented for digits and CIFAR", "table3": "Table 3 is of CIFAR-100",
}  # fmt: skip


def data_of(what: str, scale: str) -> str:
    """The data set of a figure or table where none is named."""
    return OF_SCALE[scale].data or ("cifar100" if what in ON_CIFAR100 else "cifar10")


class _Planner:
    """Makes the rows of one figure or table at one scale."""

    def __init__(self, scale: str, epochs: int | None) -> None:
        self.scale, self.own, self.epochs = scale, OF_SCALE[scale], epochs

    def _train(
        self, program: str, purpose: str, title: str, name: str, options: tuple[str, ...], times: int = 1
    ) -> Training:
        kind = "masked" if program == MASKED else "siamese"
        epochs = times * (self.epochs or self.own.epochs[purpose])
        common = self.own.masked if program == MASKED else self.own.siamese
        share = dict(self.own.warmup).get(kind)
        warmup = () if share is None else ("--warmup-epochs", f"{share * epochs:g}")
        return Training(title, name, program, (*options, *common, "--epochs", str(epochs), *warmup), epochs)

    def masked(
        self, title: str, name: str, *options: str, purpose: str = "masked", times: int = 1,
        size: str = "vit_b", probe: bool = False, finetune: bool = False,
    ) -> Training:  # fmt: skip
        """A masked run; ``times`` multiplies its epochs."""
        recipe = ("--recipe", f"paper_{size}") if self.scale == "imagenet" else ()
        run = self._train(MASKED, purpose, title, name, (*options, *recipe), times)
        evaluations = [(PROBE, self.own.probe)] if probe or finetune else []
        evaluations += [(FINETUNE, self.own.finetune)] if finetune else []
        return run._replace(evaluations=tuple(evaluations))

    def siamese(
        self, title: str, name: str, method: str, *options: str, purpose: str = "siamese"
    ) -> Training:
        """A run with two branches; ``options`` come after the published ones of the method."""
        published = PUBLISHED_OPTIONS.get(method, ()) if self.scale == "cifar-full" else ()
        return self._train(SIAMESE, purpose, title, name, ("--method", method, *published, *options))

    def three(self, *, finetune: bool = False, size: str = "vit_b") -> tuple[Training, ...]:
        """MAE, U-MAE and M-MAE."""
        large = size == "vit_l"
        prefix, suffix = ("vitl-", ", ViT-L") if large else ("", "")
        return tuple(
            self.masked(
                title + suffix, prefix + method, "--method", method, *weight, size=size, finetune=finetune
            )
            for method, title, weight in (
                ("mae", "MAE", ()), ("umae", "U-MAE", LAMBDA), ("mmae", "M-MAE", LAMBDA)
            )
        )  # fmt: skip

    def figure1(self) -> What:
        rows = [
            self.siamese(title, name, name)
            for name, title in (("simclr", "SimCLR"), ("barlow_twins", "Barlow Twins"), ("byol", "BYOL"))
        ]
        title = "Figures 1, 2 and 5: information of the two branches"
        return What(title, tuple(rows), (1, 2, 5), "siamese")

    def figure3(self) -> What:
        rows = [
            self.siamese(
                f"SimCLR, temperature {t:g}", "simclr" if t == 0.5 else f"simclr-t{t:g}",
                "simclr", "--temperature", f"{t:g}",
            )
            for t in TEMPERATURES
        ]  # fmt: skip
        return What("Figure 3: SimCLR at three temperatures", tuple(rows), (3,), "siamese")

    def figure4(self) -> What:
        return What("Figure 4: effective rank during pre-training", self.three(), (4,), "masked")

    def table1(self) -> What:
        rows = self.three(finetune=True)
        if self.scale == "imagenet":
            rows += self.three(finetune=True, size="vit_l")
        return What("Table 1: linear probe and fine-tuning", rows, (4,), "protocols")

    def table2(self) -> What:
        rows = [
            self.masked(
                f"M-MAE, mu {mu:g}, {scale}'s scale",
                "mmae" if (scale, mu) == ("code", 1) else f"mmae-{scale}-mu{mu:g}",
                "--method", "mmae", *LAMBDA, "--mu", f"{mu:g}", "--tcr-scale", scale,
                purpose="table2", probe=True,
            )
            for scale in ("code", "paper") for mu in MUS
        ]  # fmt: skip
        return What("Table 2: M-MAE over mu, in both scales", tuple(rows), (), "protocols", swept=True)

    def table3(self) -> What:
        return What("Table 3: linear probe and fine-tuning", self.three(finetune=True), (4,), "protocols")

    def strength(self) -> What:
        """M-MAE against U-MAE at equal weight and at equal second-order strength, (mu B/d)^2 / 2 times the weight."""
        batch, width = self.own.shape
        matched, divided = f"{0.01 * (batch / width) ** 2 / 2:.6g}", f"{0.01 / PROCESSES:g}"
        rows = [
            self.masked(title, name, "--method", method, *weight)
            for title, name, method, weight in (
                ("MAE", "mae", "mae", ()),
                ("M-MAE", "mmae", "mmae", LAMBDA),
                ("U-MAE", "umae", "umae", LAMBDA),
                ("U-MAE, matched strength", f"umae-lambda{matched}", "umae", ("--lambda", matched)),
                (f"M-MAE, lambda / {PROCESSES}", f"mmae-lambda{divided}", "mmae", ("--lambda", divided)),
            )
        ]
        return What("M-MAE against U-MAE at equal second-order strength", tuple(rows), (4,), "strength")

    def matched(self) -> What:
        """The three arms of ``strength`` that its question needs."""
        strength = self.strength()
        rows = [row for row in strength.rows if row.title in ("MAE", "M-MAE", "U-MAE, matched strength")]
        return strength._replace(rows=tuple(rows))

    def defects(self) -> What:
        divided = f"{0.01 / PROCESSES:g}"

        def mmae(title: str, name: str, weight: str, *options: str) -> Training:
            return self.masked(title, name, "--method", "mmae", "--lambda", weight, *options, probe=True)

        rows = (
            self.masked("MAE", "mae", "--method", "mae", probe=True),
            mmae("M-MAE", "mmae", "0.01"),
            mmae(f"M-MAE, gradient divided by {PROCESSES}", f"mmae-lambda{divided}", divided),
            mmae("M-MAE, norm applied twice", "mmae-doublenorm", "0.01", "--double-norm"),
            mmae(
                f"M-MAE as released on {PROCESSES} GPUs", f"mmae-lambda{divided}-doublenorm", divided,
                "--double-norm",
            ),
            mmae("M-MAE, coding rate as printed", "mmae-paper-mu1", "0.01", "--tcr-scale", "paper"),
        )  # fmt: skip
        return What("Three defects of the published code", rows, (4,), "protocols")

    def er(self) -> What:
        batch, rows = str(self.own.small_batch), []
        small_batch = (f", batch {batch}", f"-b{batch}", ("--batch", batch))
        small_ema = (f", EMA {SMALL_EMA:g}", f"-ema{SMALL_EMA:g}", ("--ema", f"{SMALL_EMA:g}"))
        for method, title in (("simclr", "SimCLR"), ("byol", "BYOL"), ("dino", "DINO")):
            changes = [("", "", ()), small_batch] + ([] if method == "simclr" else [small_ema])
            rows += [
                self.siamese(
                    title + of_er + said, method + er + called, method + er, *changed, purpose="er"
                )
                for said, called, changed in changes for er, of_er in (("", ""), ("_er", "+ER"))
            ]  # fmt: skip
        title = "Entropy-reconstruction objectives against their originals"
        return What(title, tuple(rows), (), "siamese")

    def mimae(self) -> What:
        full = self.scale in ("cifar-full", "imagenet")

        def row(title: str, name: str, method: str, times: int = 1) -> Training:
            return self.masked(
                title, name, "--method", method, purpose="mimae", times=times, probe=True, finetune=full
            )

        rows = (
            row("MAE", "mae", "mae"),
            row("MAE, four times the epochs", "mae", "mae", 4),
            row("MAE, 4 masks", "mae4", "mae4"),
            row("MI-MAE style", "mimae", "mimae"),
        )
        return What("MI-MAE style against its controls", rows, (4,), "protocols")


WHATS = (
    "figure1", "figure3", "figure4", "table1", "table2", "table3", "strength", "matched", "defects", "er", "mimae",
)  # fmt: skip


def plan(what: str, scale: str, epochs: int | None = None) -> What:
    """The runs of a figure or table; ``epochs`` replaces the scale's epochs of pre-training."""
    return getattr(_Planner(scale, epochs), what)()
