"""How a supernet is trained; free of torch, so that a config is checked without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from nas.errors import NasError
from supernet.data.split import NONE, Augmentation

Strategy = Literal["progressive", "sandwich", "uniform"]
PhaseKind = Literal["full", "kernel", "depth", "width", "precision", "train"]
Gradient = Literal["identity", "clipped"]
"""How gradients pass a rounding, see `supernet.quantize`."""

Tuned = Literal["identity", "clipped", "lsq"]
"""How gradients pass a rounding in fine-tuning; `lsq` learns the steps as well, where they are free."""

Numbers = Literal["fixed", "affine"]
"""`fixed`: steps are powers of two, as in FPGAs. `affine`: free steps and a zero point, as in CPUs and NPUs."""

Range = Literal["minmax", "mse", "percentile"]
"""What values a format is to hold: all, as many as give the least squared error, or all but the largest."""

PHASES: dict[Strategy, tuple[PhaseKind, ...]] = {
    "progressive": ("full", "kernel", "depth", "width", "precision"),
    "sandwich": ("train", "precision"),
    "uniform": ("train", "precision"),
}
"""The phases of each strategy in order; only the first one must have epochs."""

PARTNERS = 2
"""What the sandwich rule always trains: the largest network and the smallest."""


@dataclass(frozen=True)
class Training:
    """How a supernet is trained.

    The same settings give the same training on any number of processes: `batch` is that of all together.

    Attributes:
        strategy: `progressive` shrinking (Once-for-All, section 3.3): the full network first, then ever smaller ones,
            taught by it. `sandwich` (BigNAS, section 3.1): in every step the largest network, which learns from the
            labels and teaches the smallest and random ones. `uniform`: random ones from the first step, labels alone.
        epochs: Epochs of each stage of each phase in `PHASES`, such as `{"full": (8,), "depth": (1, 2)}`.
        batch: Images per step, over all processes.
        learning_rate: Peak of the rate, warmed up to and then annealed by a cosine.
        subnets_per_step: Networks per step of each phase, 1 where not given; their losses are averaged. Under
            `sandwich` the largest and the smallest count, so it is at least 2 there.
        shrink_rate: Peak of every phase after the first; None for `learning_rate`.
        anneal: Over what the rate rises and falls: each `stage`, as in Once-for-All, or the whole `training` but
            precision, whose stages have their own. One cosine makes better use of few epochs, and a poor teacher:
            the full network is frozen while its rate is still high.
        optimizer: `sgd` with Nesterov momentum 0.9, or `adamw`.
        warmup: Share of the steps of `anneal` over which the rate rises linearly, in [0, 1).
        weight_decay: Of the weights of products; BatchNorm, biases and kernel transforms do not decay.
        label_smoothing: Share of the hard labels spread over all classes; under `sandwich` the largest network's only.
        distillation: Weight of the teacher's soft labels in the loss of those it teaches; the labels get the rest.
            At 0 nothing is taught, and nothing frozen to teach.
        ema: Decay of the weights' running average, which replaces the weights as each stage ends; 0 for none.
        clip: Largest norm of the gradient; 0 for any.
        augmentation: How training images are varied.
        pruning_ramp: Share of precision's steps over which sparsities rise from 0, see `schedule.sparsity_share`; 0 for
            networks that are pruned at once.
        gradient: How gradients pass the rounding of quantized layers: where nothing saturates (`clipped`), or
            everywhere (`identity`).
        autocast: The type products are computed in; `none` is float32. `fp16` scales the loss.
        channels_last: Whether tensors are laid out with their channels innermost.
        compile: Whether networks that stay the same are compiled: the full one as it trains alone, and the teacher.
        synchronised: Whether BatchNorm sees the batch of all processes.
        calibration: Training images that give a subnet its BatchNorm statistics and activation formats.
        log_steps: Steps between reports.
        checkpoint_steps: Steps between checkpoints; one is written as each stage ends, too.
        threads: Threads of each process.
    """

    strategy: Strategy
    epochs: Mapping[str, tuple[int, ...]]
    batch: int
    learning_rate: float
    subnets_per_step: Mapping[str, int] = field(default_factory=dict)
    shrink_rate: float | None = None
    anneal: Literal["stage", "training"] = "stage"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    warmup: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    distillation: float = 0.0
    ema: float = 0.0
    clip: float = 0.0
    augmentation: Augmentation = NONE
    pruning_ramp: float = 0.0
    gradient: Gradient = "clipped"
    autocast: Literal["none", "bf16", "fp16"] = "none"
    channels_last: bool = False
    compile: bool = False
    synchronised: bool = True
    calibration: int = 512
    log_steps: int = 50
    checkpoint_steps: int = 500
    threads: int = 1

    __pydantic_config__: ClassVar[Mapping[str, str | bool]] = {"extra": "forbid", "allow_inf_nan": False}

    def __post_init__(self) -> None:
        self._require_phases()
        for name in ("warmup", "ema"):
            _require(0 <= getattr(self, name) < 1, name, "lie in [0, 1)", getattr(self, name))
        for name in ("label_smoothing", "distillation", "pruning_ramp"):
            _require(0 <= getattr(self, name) <= 1, name, "lie in [0, 1]", getattr(self, name))
        for name in ("batch", "calibration", "log_steps", "checkpoint_steps", "threads"):
            _require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        for name in ("weight_decay", "clip"):
            _require(getattr(self, name) >= 0, name, "not be negative", getattr(self, name))
        for name, rate in (("learning_rate", self.learning_rate), ("shrink_rate", self.shrink_rate)):
            _require(rate is None or rate > 0, name, "be positive", rate)

    def _require_phases(self) -> None:
        known = PHASES[self.strategy]
        for name in ("epochs", "subnets_per_step"):
            for phase in getattr(self, name):
                _require(phase in known, name, f"be given for phases of {self.strategy}, {', '.join(known)}", phase)
        for phase, lengths in self.epochs.items():
            _require(min(lengths, default=0) >= 0, f"epochs.{phase}", "not be negative", lengths)
        needed = f"hold epochs of the first phase of {self.strategy}, {known[0]}"
        _require(sum(self.epochs.get(known[0], ())) > 0, "epochs", needed, dict(self.epochs))
        for phase in known:
            least = PARTNERS if self.strategy == "sandwich" else 1
            law = f"be at least {least} for {self.strategy}"
            _require(self.networks(phase) >= least, f"subnets_per_step.{phase}", law, self.networks(phase))

    def networks(self, phase: PhaseKind) -> int:
        """Networks of one step of a phase."""
        return self.subnets_per_step.get(phase, PARTNERS if self.strategy == "sandwich" else 1)

    def peak(self, phase: PhaseKind) -> float:
        """The largest learning rate of a phase."""
        first = phase == PHASES[self.strategy][0]
        return self.learning_rate if first or self.shrink_rate is None else self.shrink_rate


def _require(holds: bool, name: str, law: str, value: object) -> None:
    if not holds:
        raise NasError(f"{name} must {law}; got {value!r}")
