"""Data sets by the name a config gives them; reading their settings imports no torch."""

from supernet.data.cifar import Cifar10, Cifar100
from supernet.data.digits import Digits
from supernet.data.idx import FashionMnist, Mnist
from supernet.data.image_folder import ImageFolder
from supernet.data.jets import Jets
from supernet.data.table import Table

Source = Digits | Mnist | FashionMnist | Cifar10 | Cifar100 | ImageFolder | Table | Jets

SOURCES: dict[str, type[Source]] = {
    "digits": Digits,
    "mnist": Mnist,
    "fashion-mnist": FashionMnist,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "folder": ImageFolder,
    "table": Table,
    "jets": Jets,
}
