"""Names of parameters in files that torchvision has published."""

import re

# In published files, these parameters have old names.
OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),  # DenseNet
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),  # ViT
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
TRAINING_ONLY = ("aux1.", "aux2.", "AuxLogits.")  # parameters in GoogLeNet and Inception


def current_name(name: str) -> str | None:
    """Return a parameter's current name in torchvision. None: only training uses the parameter."""
    if name.startswith(TRAINING_ONLY):
        return None
    for old, new in OLD_NAMES:
        name = old.sub(new, name)
    return name
