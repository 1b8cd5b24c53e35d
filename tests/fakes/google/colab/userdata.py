"""A fake of Colab's secrets. A secret can be an exception, which is then raised."""

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
