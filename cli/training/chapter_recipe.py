"""The recipe of `sparsewell train chapters`: a TOML file and options, both may be missing."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from models.chapters.training.recipe import ChapterRecipe
from services.errors import ConfigurationError


def read_chapter_recipe(path: Path | None, steps: int | None) -> ChapterRecipe:
    """`steps` wins over the file. Raises ConfigurationError (`bad_recipe`)."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
        return ChapterRecipe.model_validate(content | ({} if steps is None else {"steps": steps}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ConfigurationError("bad_recipe", f"{path or 'The recipe'}: {where}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad_recipe", f"{path} cannot be read as TOML: {error}.") from None
