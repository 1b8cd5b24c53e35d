import pytest
import torch


@pytest.fixture(params=[True, False], ids=["zip", "old"])
def torch_save(request, tmp_path):
    """Saves something in one of torch.save's formats; returns the file's path."""

    def save(content, **options):
        zipped = request.param
        torch.save(content, tmp_path / "n.pth", _use_new_zipfile_serialization=zipped, **options)
        return tmp_path / "n.pth"

    return save
