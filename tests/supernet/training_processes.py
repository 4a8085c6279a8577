"""What each process of test_distributed.py runs, started by torchrun: trainings by two, from and to those of one."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from small_trainings import DISTRIBUTED, InDouble, begin, few_digits

from nas.errors import NasError
from supernet.distributed import Ranks, one_thread, processes
from supernet.metrics import Progress
from supernet.settings import Training
from supernet.train import SupernetTraining


def losses(training: SupernetTraining, checkpoint: Path, middle: Path | None = None) -> dict[int, float]:
    """The loss of each step; the checkpoint of step 10 goes to `middle`."""
    found: dict[int, float] = {}

    def report(progress: Progress) -> None:
        found[progress.step] = progress.loss
        if progress.step == 11 and middle is not None:
            middle.write_bytes(checkpoint.read_bytes())

    training.run(checkpoint, report)
    return found


def broken(settings: Training, ranks: Ranks, folder: Path) -> str:
    """What this process says of an image that only one process sees."""
    images = few_digits()
    images.images[5] = torch.nan
    try:
        begin(settings, data=images, ranks=ranks).run(folder / "broken.pt", lambda _: None)
    except NasError as error:
        return str(error)
    return "nothing"


def main(folder: Path) -> None:
    one_thread()
    with processes("cpu") as ranks:
        found = {}
        for name, settings in DISTRIBUTED.items():
            training = InDouble(settings, ranks)
            found[name] = losses(training, folder / f"{name}.pt", folder / f"{name}-middle.pt")
            torch.save(training.supernet.state_dict(), folder / f"{name}-weights-{ranks.rank}.pt")
            if ranks.first:
                training.specialise(training.full)  # by one process alone: nothing may wait for the other
            found[f"{name} resumed"] = losses(InDouble(settings, ranks), folder / f"{name}-one-middle.pt")
        told = [broken(replace(settings, synchronised=False), ranks, folder) for settings in DISTRIBUTED.values()]
        (folder / f"found-{ranks.rank}.json").write_text(json.dumps({"losses": found, "told": told}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
