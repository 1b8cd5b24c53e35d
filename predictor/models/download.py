"""Download a file of published weights."""

import hashlib
import re
import sys
from pathlib import Path

import requests
from filelock import FileLock
from tqdm import tqdm

from predictor.errors import WeightsError

TIMEOUTS_S = (10, 60)  # to connect, and to wait for the next bytes


def download(url: str, path: Path) -> None:
    """Download a file, show the progress, and check its hash.

    The file name in the URL ends with the first digits of the SHA-256, as torchvision's do
    (``vgg16-397923af.pth``). The file appears at ``path`` only when it is complete. If several
    processes need the file, one downloads it and the others wait. (This function replaces
    ``torch.hub.download_url_to_file``, which has no read timeout and no lock.)

    Raises:
        requests.RequestException: the connection failed or ended early, or the status is an error.
        OSError: the file cannot be written.
        WeightsError: the file name has no hash, or the downloaded bytes have another hash.
    """
    published = re.search(r"-([0-9a-f]{8,})\.pth?$", url)
    if published is None:
        raise WeightsError(
            f"The file name in {url} must end with the start of the file's SHA-256, as in"
            " vgg16-397923af.pth."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")  # a killed download may have left one: overwrite it
    with FileLock(f"{path}.lock"):
        if path.is_file():
            return
        try:
            digest = _fetch(url, part)
            if not digest.startswith(published[1]):
                raise WeightsError(
                    f"The download from {url} has the SHA-256 {digest[:8]}…, but {published[1]}…"
                    " was published. A proxy or a captive portal may have answered instead."
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _fetch(url: str, path: Path) -> str:
    """Download to a file and return its SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with requests.get(url, stream=True, timeout=TIMEOUTS_S) as response:
        response.raise_for_status()
        title = f"Downloading {url.rpartition('/')[2]}"
        size = int(response.headers.get("Content-Length", 0)) or None
        interval_s = 0.1 if sys.stderr.isatty() else 10  # few lines in a log
        bar = tqdm(desc=title, total=size, unit="B", unit_scale=True, mininterval=interval_s)
        with bar, path.open("wb") as file:
            for chunk in response.iter_content(chunk_size=1 << 20):
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
    return digest.hexdigest()
