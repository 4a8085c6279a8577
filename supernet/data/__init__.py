"""Data sets by the name a config gives them; reading their settings imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from supernet.data.cifar import Cifar10, Cifar100
from supernet.data.digits import Digits
from supernet.data.idx import FashionMnist, Mnist
from supernet.data.image_folder import ImageFolder
from supernet.data.table import Table

Source = Digits | Mnist | FashionMnist | Cifar10 | Cifar100 | ImageFolder | Table

SOURCES: dict[str, type[Source]] = {
    "digits": Digits,
    "mnist": Mnist,
    "fashion-mnist": FashionMnist,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "folder": ImageFolder,
    "table": Table,
}

# For callers that import from here what now has a module of its own.
if TYPE_CHECKING:
    from supernet.data.old import batches as batches
    from supernet.data.old import load_dataset as load_dataset
    from supernet.data.old import shift_images as shift_images
    from supernet.data.split import NONE as NONE
    from supernet.data.split import Augmentation as Augmentation
    from supernet.data.split import Dataset as Dataset
    from supernet.data.split import Split as Split
    from supernet.data.split import Step as Step
    from supernet.data.split import order as order
    from supernet.data.tensor_split import TensorSplit as TensorSplit


def __getattr__(name: str) -> Any:
    for module in ("old", "split", "tensor_split"):
        found = getattr(import_module(f"supernet.data.{module}"), name, None)
        if found is not None:
            return found
    raise AttributeError(name)
