"""`sparsewell openapi`: print the OpenAPI document of the API."""

import json


def openapi() -> None:
    """Print the OpenAPI document of the API as JSON.

    Example: sparsewell openapi
    """
    from query_api.app import create_app
    from services.settings import Settings

    print(json.dumps(create_app(Settings.read()).openapi(), indent=1, ensure_ascii=False, sort_keys=True))
