"""Search spaces by the name a config gives them."""

from nas.spaces.mlp import MlpChoices
from nas.spaces.mobile import MobileChoices

Choices = MobileChoices | MlpChoices

SPACES: dict[str, type[MobileChoices] | type[MlpChoices]] = {"mobile": MobileChoices, "mlp": MlpChoices}
