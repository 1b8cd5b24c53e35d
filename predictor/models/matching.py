"""Find the parameters of a network among the tensors of a checkpoint.

Wrappers and training programs put words before the names of the parameters, and into them:
``module.``, ``_orig_mod.``, ``state_dict.model.``, ``ema.module.``. No list of them is complete, so
the prefix is whatever precedes the network's own names.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from predictor.errors import WeightsError
from predictor.models.checkpoints import Checkpoint
from predictor.models.old_names import current_name

# Wrappers add these anywhere: DataParallel, torch.compile, FSDP, checkpointing, Lightning's Fabric.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
            "_forward_module"}  # fmt: skip
# Names beside the network's that only training uses: FLOP counters, losses, metrics, optimizers.
TRAINING = re.compile(
    r"(.*\.)?(total_ops|total_params|n_averaged)"
    r"|((\w+_)?(criterion|loss|metrics?|optimi[sz]ers?|(lr_)?schedulers?|ema|teacher)(_\w+)?"
    r"|(train|val|valid|test)_\w+)\..*"
)
# An averaged copy of the network that was trained.
COPY = re.compile(r"(.*[._])?(ema|average|averaged|avg|teacher|momentum|shadow|swa|target)[._].*")


@dataclass(frozen=True)
class Match:
    """The tensors of one network in a checkpoint."""

    state: OrderedDict[str, Tensor]  # by the network's names, as many of them as there are
    renamed: list[tuple[str, str]]  # the file's name and the network's
    unexpected: list[str]  # the file's names that this network should have
    ignored: list[str]
    others: list[str]  # other places in the file where weights of this network are


def match(checkpoint: Checkpoint, expected: Mapping[str, Tensor]) -> Match:
    """Find the tensors with the expected names.

    Of several networks in the file, prefer a complete one, then the expected shapes, then one that
    was trained over an averaged copy, then the shortest prefix.

    Raises:
        WeightsError: no weights of this network are at the key that the operator has chosen.
    """
    tensors, key = checkpoint.tensors, checkpoint.key
    if not any(name.endswith("_orig") for name in expected):
        tensors = _without_masks(tensors)
    bare = {name: _bare(name) for name in tensors}
    found = _by_prefix(bare, {_bare(name): name for name in expected})
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    complete = [prefix for prefix, names in found.items() if needed <= names.keys()]
    if key is not None:
        found = {p: names for p, names in found.items() if p.startswith(_bare(f"{key}."))}
        if not found:
            where = ", ".join(map(_place, complete)) or "nowhere in the file"
            raise WeightsError(
                f"weights_key={key!r}: the weights in {checkpoint.path} are {where}."
            )

    def rank(prefix: str) -> tuple[int, bool, bool, int]:
        names = found[prefix]
        misfit = any(tensors[n].shape != expected[name].shape for name, n in names.items())
        copy = bool(COPY.match(prefix))
        return len(needed - names.keys()), misfit, copy, prefix.count(".")

    prefix = min(found, key=rank, default="")
    names = found.get(prefix, {})
    if len(needed & names.keys()) * 2 < len(needed):
        prefix, names = "", {}  # a few equal names do not make it this network
    others = [p for p in complete if p != prefix]
    unexpected = _unexpected(prefix, names, bare, others)
    used = {*names.values(), *unexpected}
    return Match(
        state=OrderedDict((name, tensors[n]) for name, n in names.items()),
        renamed=[(n, name) for name, n in names.items() if n != name],
        unexpected=unexpected,
        ignored=[n for n in tensors if n not in used and not bare[n].startswith(tuple(others))],
        others=[_place(p) for p in others],
    )


def _bare(name: str) -> str:
    """Remove the words that wrappers have added."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _place(prefix: str) -> str:
    return repr(prefix.removesuffix(".")) if prefix else "at the top"


def _without_masks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Apply the masks of torch.nn.utils.prune, which keeps ``weight_orig`` and ``weight_mask``."""
    result = dict(tensors)
    for name in tensors:
        base = name.removesuffix("_mask")
        if base != name and f"{base}_orig" in result:
            result[base] = result.pop(f"{base}_orig") * result.pop(name)
    return result


def _by_prefix(bare: Mapping[str, str], own: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return, for each prefix, the network's names below it and the file's names for them."""
    found: dict[str, dict[str, str]] = {}
    for name, path in bare.items():
        parts = path.split(".")
        for length in range(len(parts)):
            rest = ".".join(parts[length:])
            if known := own.get(rest) or own.get(current_name(rest) or ""):
                found.setdefault(".".join([*parts[:length], ""]), {}).setdefault(known, name)
    return found


def _unexpected(
    prefix: str, names: Mapping[str, str], bare: Mapping[str, str], others: list[str]
) -> list[str]:
    """Return unexplained names below the prefix: a ResNet-34 has all names of a ResNet-18."""
    copies = tuple(p for p in others if p.startswith(prefix))
    used = set(names.values())
    unexpected = []
    for name, path in bare.items():
        rest = path.removeprefix(prefix)
        inside = path.startswith(prefix) and not path.startswith(copies) and name not in used
        if inside and current_name(rest) is not None and not TRAINING.fullmatch(rest):
            unexpected.append(name)
    return unexpected
