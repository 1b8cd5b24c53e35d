"""The app for development: ``python app.py`` or ``flask --app app run``."""

from predictor.server.development import create_app

__all__ = ["create_app"]

if __name__ == "__main__":
    from predictor.cli.development import main

    main()
