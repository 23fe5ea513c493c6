"""Opens a teacher by its name, or by the directory of a model at hand."""

from __future__ import annotations

from pathlib import Path

from models.training.teachers.dense import MODEL, DenseForm, DenseTeacher
from models.training.teachers.fetch import Report, fetch, known_models
from services.errors import ConfigurationError


def open_dense(
    name: str,
    cache: Path,
    report: Report = lambda message: None,
    *,
    form: DenseForm | None = None,
    threads: int = 0,
    max_pieces: int | None = None,
) -> DenseTeacher:
    """A known teacher, fetched into `cache` if need be, or a directory with model.onnx and tokenizer.json.

    `form` says how a directory's model is used (mean pooling, no prefixes where it is absent); a known one has its
    own. `max_pieces` overrides the form's. Raises ConfigurationError: `unknown_model`, `no_teacher` for a known model
    that is none, and as `fetch` and `DenseTeacher`.
    """
    directory, used = Path(name).expanduser(), form or DenseForm()
    known = known_models().get(name)
    if known is not None:
        if known.form is None:
            raise ConfigurationError("no_teacher", f"{name} is no dense teacher: {known.what}.")
        directory, used = fetch(name, cache, report), DenseForm.of(known.form)
    elif not (directory / MODEL).is_file():
        names = ", ".join(one for one, model in known_models().items() if model.form is not None)
        raise ConfigurationError(
            "unknown_model",
            f"{name!r} is neither a teacher that can be fetched ({names}) nor a directory with {MODEL}.",
        )
    return DenseTeacher(directory, used.cut(max_pieces), name=name if known else "", threads=threads)
