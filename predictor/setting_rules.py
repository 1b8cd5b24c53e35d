"""Which settings were removed, and which cannot be set together."""

from collections.abc import Collection, Mapping
from typing import Any

from predictor.errors import SettingsError

PREFIX = "PREDICTOR_"
# Defaults for development and for the command line: if VGG16 (528 MB) cannot be downloaded, the
# app serves a small model and logs that. A production start never changes the model by itself.
DEVELOPMENT = {"PREDICTOR_FALLBACK_MODEL": "efficientnet_lite0"}
# Settings of earlier versions, and what replaces each of them.
REMOVED = {
    "PREDICTOR_HANG_TIMEOUT_S": (
        "The timeout is now always four times PREDICTOR_REQUEST_TIMEOUT_S, at least 120 s."
    ),
    "PREDICTOR_INFERENCE_THREADS": (
        "The server computes the number from PREDICTOR_TORCH_THREADS, the processors for the model."
    ),
    "PREDICTOR_MAX_RECEIVE_BYTES": (
        "The server computes the limit from PREDICTOR_MAX_UPLOAD_BYTES and PREDICTOR_MAX_IN_FLIGHT."
    ),
    "PREDICTOR_SHARED_WEIGHTS_FD": "The processes now share the weights automatically.",
}


def refuse_beside_store(values: Mapping[str, Any], of_model: Collection[str]) -> None:
    """Raise SettingsError if a store is set, and one of the settings that describe one model."""
    if values.get(store := f"{PREFIX}STORE", "none") == "none":
        return
    for name in {*of_model} - {store}:
        if values[name] not in ("auto", "none", DEVELOPMENT.get(name)):
            raise SettingsError(
                f"{name} describes one model, but {store} names a folder of several. Unset one of"
                f" the two. A model in a store is described by the model.toml of its folder."
            )


def refuse_idle_management(values: Mapping[str, Any]) -> None:
    """Raise SettingsError if a setting of the management API would have no effect."""
    given = [name for name in values if name.startswith(f"{PREFIX}MANAGEMENT_") and values[name]]
    lacks = "STORE" if values.get(f"{PREFIX}STORE", "none") == "none" else "MANAGEMENT_TOKENS_FILE"
    if given and (lacks == "STORE" or given == [f"{PREFIX}MANAGEMENT_BIND"]):
        raise SettingsError(f"{given[0]} has no effect without {PREFIX}{lacks}. Set it, too.")
