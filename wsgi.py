"""The app for production: ``gunicorn wsgi:app``."""

from predictor.settings import current_settings
from predictor.store.folder import process_store
from predictor.web import create_app

app = create_app(current_settings(), process_store())
