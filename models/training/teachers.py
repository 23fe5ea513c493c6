"""Teachers: an ensemble, a sparsewell encoder, a model that encodes queries too, and BM25.

`models.dense` has dense teachers, `models.training.scored_candidates` those that score chosen candidates only.

- `ensemble_targets` are the targets of heterogeneous distillation (arXiv 2411.04403, section 3.3).
- `SparseTeacher` encodes passages by the encoder's model and queries by its query table; `expand_texts` writes its
  heaviest words before a text.
- `SiameseTeacher` is a dense or sparse model of sentence-transformers (splade-v3, gte).
- `Bm25Teacher`: a passage's vector holds its BM25 weights, a query's vector ones, so their dot product is the score.
  The form is Lucene's: idf = ln(1 + (N - df + .5) / (df + .5)), tf / (tf + k1 (1 - b + b length / average)), without
  the constant factor k1 + 1; a repeated word of a query counts once.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.registry import load_encoder
from models.training.pairs import texts_fingerprint
from models.training.teacher_vectors import (
    EncodedTexts,
    Scores,
    SparseRows,
    TeacherVectors,
    load_vectors_of,
    teacher_name,
)
from services.encoders.manifest import resolve_model_directory
from services.encoders.query_table import QueryTable
from services.encoders.vectors import SparseVector, merge_max
from services.errors import ConfigurationError, InvalidInput, require_extra
from services.text_encoding import replace_surrogates

# Enough texts to sort their windows by length, few enough to hold the vectors of their windows in memory.
_BATCH_PASSAGES = 128
_BATCH_TEXTS = 1024
_MODEL_TEXTS = 32  # texts of one run of a model of sentence-transformers
K1, B = 1.2, 0.75


@dataclass(frozen=True, slots=True)
class TeacherEnsemble:
    """Teachers' vectors of the same texts, their weights, and the scale of the targets."""

    vectors: Sequence[TeacherVectors]
    weights: Sequence[float]
    scale: float

    def targets(
        self,
        query_rows: NDArray[np.integer],
        passage_rows: NDArray[np.integer],
        left_out: NDArray[np.bool_] | None = None,
    ) -> Scores:
        """Return the targets of a batch, see `ensemble_targets`.

        A passage that one of the teachers has not scored for a query has the target NaN, and is no candidate for the
        others: the loss must leave it out of both distributions.
        """
        used = [(v, w) for v, w in zip(self.vectors, self.weights, strict=True) if w]
        matrices = [v.scores(query_rows, passage_rows) for v, _ in used]
        unscored = ~np.logical_and.reduce([np.isfinite(scores) for scores in matrices])
        excluded = unscored if left_out is None else unscored | left_out
        targets = ensemble_targets(matrices, [w for _, w in used], self.scale, excluded)
        targets[unscored] = np.nan
        return targets


def ensemble_targets(
    score_matrices: Sequence[NDArray[np.floating]],
    weights: Sequence[float],
    scale: float,
    left_out: NDArray[np.bool_] | None = None,
) -> Scores:
    """Return float32 [B, M]: scale x the weighted sum of the teachers' scores, each scaled over a query's candidates.

    The student's distribution over a row is trained towards the softmax of the targets; the paper has weights .5 and
    .5, scale 10 in pre-training and 30 in fine-tuning. Columns in `left_out` (bool [B, M], see
    `models.training.batches`) are 0, and the caller must leave them out of both distributions. `scale_scores` handles
    ties and entries that are not finite.

    Raises InvalidInput (`bad_ensemble`) for no teachers, different shapes, a wrong number of weights, a negative or
    infinite weight, weights that are all 0, and a scale that is not positive.
    """
    require_teacher_weights(len(score_matrices), weights)
    if not (np.isfinite(scale) and scale > 0):
        raise InvalidInput("bad_ensemble", f"The scale of the targets must be above 0, not {scale}.")
    shapes = {np.shape(scores) for scores in score_matrices} | ({left_out.shape} if left_out is not None else set())
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise InvalidInput("bad_ensemble", f"Teachers' scores must share one shape [queries, passages], not {shapes}.")
    total = np.zeros(next(iter(shapes)), dtype=np.float32)
    for scores, weight in zip(score_matrices, weights, strict=True):
        if weight:
            total += np.float32(weight) * scale_scores(scores, left_out)
    return total * np.float32(scale)


def scale_scores(scores: NDArray[np.floating], left_out: NDArray[np.bool_] | None = None) -> Scores:
    """Scale each row to [0, 1]: its lowest candidate to 0, its highest to 1; float32 [B, M].

    Entries that are not finite or in `left_out` are not candidates: they set no bound and become 0. A row whose
    candidates all have the same score becomes 0, since a teacher that cannot distinguish them gives no information.
    """
    # in float64 the difference of two float32 cannot overflow
    values = np.asarray(scores, dtype=np.float64)
    candidate = np.isfinite(values) if left_out is None else np.isfinite(values) & ~left_out
    lowest = np.where(candidate, values, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    highest = np.where(candidate, values, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    scaled = candidate & (highest > lowest)
    shifted = np.where(scaled, values, 0.0) - np.where(scaled, lowest, 0.0)
    span = np.where(scaled, highest, 1.0) - np.where(scaled, lowest, 0.0)
    result: Scores = np.divide(shifted, span, out=np.zeros(values.shape), where=scaled).astype(np.float32)
    return result


def require_teacher_weights(teachers: int, weights: Sequence[float]) -> None:
    """Raise InvalidInput (`bad_ensemble`) unless there is a teacher, and a valid weight for each."""
    if not teachers or len(weights) != teachers:
        raise InvalidInput("bad_ensemble", f"{teachers} teachers need {teachers} weights, not {len(weights)}.")
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise InvalidInput("bad_ensemble", f"Weights of teachers must be 0 or more, and not all 0: {list(weights)}.")


class SparseTeacher:
    """Sparsewell encoder as a `models.training.teacher_vectors.Teacher`.

    A passage's vector is that of the index: the largest weights over its windows, cut to the encoder's top k.
    """

    def __init__(self, name_or_path: str, *, threads: int = 0) -> None:
        """Load the encoder. Raises ConfigurationError, as `models.registry.load_encoder` and `QueryTable.load`."""
        self._encoder = load_encoder(name_or_path, threads=threads)
        self._table = QueryTable.load(resolve_model_directory(name_or_path))
        self.name = self._encoder.manifest.name
        window = self._encoder.manifest.window
        self.fingerprint = texts_fingerprint([self._encoder.fingerprint, f"{window.pieces} {window.overlap}"])

    def encode_queries(self, texts: Sequence[str]) -> SparseRows:
        lengths, ids, weights = [0], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        for text in texts:
            encoded = self._table.encode(replace_surrogates(text), max_pieces=sys.maxsize)
            order = np.argsort(encoded.ids)
            lengths.append(len(encoded.ids))
            ids.append(np.array(encoded.ids, dtype=np.int32)[order])
            weights.append(np.array(encoded.weights, dtype=np.float32)[order])
        return SparseRows.of(np.array(lengths[1:], dtype=np.int64), np.concatenate(ids), np.concatenate(weights))

    def encode_passages(self, texts: Sequence[str]) -> SparseRows:
        """Encode passages. Raises InvalidInput (`not_finite_weights`) for NaN and infinity."""
        vectors: list[SparseVector] = []
        for start in range(0, len(texts), _BATCH_PASSAGES):
            windows_of_texts = [self._encoder.windows(text) for text in texts[start : start + _BATCH_PASSAGES]]
            encoded = iter(self._encoder.encode([window for windows in windows_of_texts for window in windows]))
            vectors += [
                merge_max([next(encoded) for _ in windows]).top(self._encoder.manifest.top_k)
                for windows in windows_of_texts
            ]
        return SparseRows.of_vectors(vectors)

    def new_words(self, text: str, vector: SparseRows, count: int) -> list[str]:
        """Return at most `count` words that a text lacks, the heaviest of its vector (one row) first."""
        own = set(self._table.encode(replace_surrogates(text), max_pieces=sys.maxsize).ids)
        found: list[str] = []
        for piece_id in vector.ids[np.argsort(-vector.weights, kind="stable")].tolist():
            piece = self._encoder.piece(piece_id)
            if len(found) < count and piece_id not in own and piece.isalnum():
                found.append(piece)
        return found


def expand_texts(
    teacher: SparseTeacher,
    texts: Sequence[str],
    count: int,
    directory: Path,
    done: Callable[[str, int, int], object] = lambda side, rows, total: None,
) -> list[str]:
    """Write before each text the heaviest words that it lacks, at most `count`: `expand_by` of a recipe.

    The vectors are kept in `directory`, as those of a teacher.
    """
    rows = load_vectors_of(teacher, "passages", texts, teacher.encode_passages, directory, done)
    if not isinstance(rows, SparseRows):
        raise TypeError("a sparse teacher has sparse vectors")
    return [
        " ".join([*teacher.new_words(text, rows.take(np.array([at])), count), text]) for at, text in enumerate(texts)
    ]


class SiameseTeacher:
    """Model of sentence-transformers that encodes queries and passages, as a `Teacher`: SparseEncoder or dense.

    Its prompts and its similarity (dot product or cosine) are those of its files. A text is truncated at the model's
    length. Code of a model's repository is not run.
    """

    def __init__(self, name_or_path: str, *, device: str | None = None) -> None:
        """Load a directory, or a model of a hub. Raises ConfigurationError: `missing_library`, `bad_teacher`."""
        library = _import_library("sentence_transformers")
        try:
            is_sparse = _is_sparse_model(name_or_path)
            self._model = (library.SparseEncoder if is_sparse else library.SentenceTransformer)(
                name_or_path, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
            similarity = str(self._model.similarity_fn_name)
        except Exception as error:  # the library's errors share no base
            raise ConfigurationError("bad_teacher", f"{name_or_path} is not a usable teacher: {error}") from None
        if similarity not in ("dot", "cosine"):
            raise ConfigurationError(
                "bad_teacher", f"{name_or_path} compares by {similarity}; a teacher compares by dot product or cosine."
            )
        self._is_sparse, self._normalise = is_sparse, similarity == "cosine"
        self.name = teacher_name(name_or_path)
        form = f"{similarity} {self._model.max_seq_length} {sorted(self._model.prompts.items())}"
        self.fingerprint = texts_fingerprint([form, hash_parameters(self._model)])

    def encode_queries(self, texts: Sequence[str]) -> EncodedTexts:
        return self._rows(self._model.encode_query([replace_surrogates(text) for text in texts], **self._options()))

    def encode_passages(self, texts: Sequence[str]) -> EncodedTexts:
        return self._rows(self._model.encode_document([replace_surrogates(text) for text in texts], **self._options()))

    def _options(self) -> dict[str, Any]:
        options = {"batch_size": _MODEL_TEXTS, "show_progress_bar": False, "convert_to_tensor": True}
        return options | ({"save_to_cpu": True} if self._is_sparse else {"normalize_embeddings": self._normalise})

    def _rows(self, encoded: Any) -> EncodedTexts:
        if not self._is_sparse:
            return np.asarray(encoded.float().cpu().numpy(), dtype=np.float16)
        tensor = (encoded if encoded.is_sparse else encoded.to_sparse()).coalesce()
        owners, ids = tensor.indices().numpy()
        lengths = np.bincount(owners, minlength=tensor.shape[0])
        return SparseRows.of(lengths, ids.astype(np.int32), tensor.values().float().numpy())


def _is_sparse_model(name_or_path: str) -> bool:
    """Tell a sparse model from a dense one by modules.json, or without the file by the head of the transformer."""
    load_file_path = importlib.import_module("sentence_transformers.util").load_file_path
    for name, mark in (("modules.json", "sparse_encoder"), ("config.json", "ForMaskedLM")):
        path = load_file_path(name_or_path, name)
        if path is not None:
            return mark in Path(path).read_text(encoding="utf-8")
    raise ConfigurationError("bad_teacher", f"{name_or_path} has neither modules.json nor config.json.")


def hash_parameters(model: Any) -> str:
    """Return 16 hex digits over the names and bytes of a torch module's parameters and buffers."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # numpy has no bfloat16, so the bytes are those of torch.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(dtype=torch.uint8).numpy())
    return digest.hexdigest()[:16]


class Bm25Teacher:
    """BM25 with the statistics of one collection; vectors are `SparseRows` over its tokens. See the module for the
    formula.
    """

    def __init__(self, passages: Sequence[str], tokens: Tokeniser, *, k1: float = K1, b: float = B) -> None:
        """Read the whole collection. Raises InvalidInput (`bad_bm25`) for k1 below 0 and b outside [0, 1]."""
        if not (k1 >= 0 and np.isfinite(k1) and 0 <= b <= 1):
            raise InvalidInput("bad_bm25", f"BM25 needs a k1 of 0 or more and a b from 0 to 1, not {k1} and {b}.")
        self._tokens, self._k1, self._b = tokens, k1, b
        frequency = np.zeros(0, dtype=np.int64)
        length = 0
        for start in range(0, len(passages), _BATCH_TEXTS):
            counted = _count_tokens(tokens.learn(passages[start : start + _BATCH_TEXTS]))
            length += int(counted.weights.sum())
            larger = np.bincount(counted.ids, minlength=frequency.size)
            larger[: frequency.size] += frequency
            frequency = larger
        count = len(passages)
        self._average = length / count if length else 1.0
        self._idf = np.log1p((count - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        self.name = f"bm25-{tokens.name}"
        self.fingerprint = texts_fingerprint([tokens.fingerprint, f"{k1} {b}", texts_fingerprint(passages)])

    def encode_queries(self, texts: Sequence[str]) -> SparseRows:
        counted = _count_tokens(self._tokens(texts))
        known = counted.ids < self._idf.size
        lengths = np.bincount(_row_owners(counted)[known], minlength=len(counted))
        return SparseRows.of(lengths, counted.ids[known], np.ones(int(known.sum()), dtype=np.float32))

    def encode_passages(self, texts: Sequence[str]) -> SparseRows:
        """Encode passages of the collection or others; new tokens are left out, but count towards the length."""
        counted = _count_tokens(self._tokens(texts))
        owners = _row_owners(counted)
        length = np.bincount(owners, counted.weights, minlength=len(counted))
        norm = self._k1 * (1 - self._b + self._b * length / self._average)
        known = counted.ids < self._idf.size
        ids, owners, times = counted.ids[known], owners[known], counted.weights[known]
        weights = self._idf[ids] * times / (times + norm[owners])
        return SparseRows.of(np.bincount(owners, minlength=len(counted)), ids, weights.astype(np.float32))


class Tokeniser(Protocol):
    """Tokeniser of BM25: cuts texts into numbered tokens, with repetitions.

    `name` is for people; `fingerprint` must change whenever a token could.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def learn(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of a collection's texts; new tokens get numbers."""
        ...

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, without tokens that no `learn` has numbered."""
        ...


class WordTokeniser:
    """Tokeniser of stemmed words of two letters or more, in lower case, without stop words: bm25s and a Snowball
    stemmer.
    """

    def __init__(self, language: str = "english", stop_words: str = "english") -> None:
        """Load the libraries; `language` is a Snowball stemmer, `stop_words` a list of bm25s.

        Raises ConfigurationError (`missing_library`).
        """
        bm25s, stemmer = _import_library("bm25s"), _import_library("Stemmer")
        self._tokenizer = bm25s.tokenization.Tokenizer(stopwords=stop_words, stemmer=stemmer.Stemmer(language))
        self.name = "words"
        self.fingerprint = f"words/{language}/{stop_words}/{bm25s.__version__}"

    def learn(self, texts: Sequence[str]) -> list[list[int]]:
        return self._ids(texts, True)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return self._ids(texts, False)

    def _ids(self, texts: Sequence[str], learn: bool) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer.tokenize(
            texts, update_vocab=learn, show_progress=False, allow_empty=False
        )
        return ids


def _count_tokens(token_ids: Sequence[Sequence[int]]) -> SparseRows:
    """Return the distinct tokens of each text in ascending order, with their counts."""
    lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
    flat = np.fromiter((token for ids in token_ids for token in ids), dtype=np.int64, count=int(lengths.sum()))
    width = int(flat.max(initial=0)) + 1
    keys, times = np.unique(np.repeat(np.arange(lengths.size), lengths) * width + flat, return_counts=True)
    return SparseRows.of(
        np.bincount(keys // width, minlength=lengths.size),
        (keys % width).astype(np.int32),
        times.astype(np.float32),
    )


def _row_owners(rows: SparseRows) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(rows)), np.diff(rows.indptr))


def _import_library(name: str) -> Any:
    with require_extra(name, "train with this teacher", "train"):
        return importlib.import_module(name)
