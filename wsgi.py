"""The app for production: ``gunicorn wsgi:app``."""

from app import create_app
from predictor.settings import Settings

app = create_app(Settings.from_env())
