"""Colab's secrets; what a notebook may not have is an exception of its own."""

secrets = {"NGROK_AUTHTOKEN": "a-secret-of-colabs"}


class SecretNotFoundError(Exception):
    pass


class NotebookAccessError(Exception):
    pass


class TimeoutException(Exception):
    pass


def get(name):
    if isinstance(secret := secrets.get(name, SecretNotFoundError(name)), Exception):
        raise secret
    return secret
