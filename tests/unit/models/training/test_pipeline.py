"""Recipes are checked before any data is read, and errors name the bad member."""

from pathlib import Path
from typing import Any

import pytest

from models.training.ablation import FULL_RECIPE, AblationRow, ablation_table, ablation_variants
from models.training.recipe import TrainingRecipe, parse_recipe, read_recipe
from services.errors import ConfigurationError


def recipe(**changes: Any) -> TrainingRecipe:
    return parse_recipe({"start": "here", "pairs": [{"path": "pairs.jsonl"}], **changes}, "the test")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "begin").mkdir()
    (tmp_path / "one.toml").write_text(
        'start = "begin"\ncollections = ["judged"]\n[[pairs]]\npath = "pairs.jsonl"\n[encoder]\nexpansion = false\n'
    )
    found = read_recipe(tmp_path / "one.toml")
    assert found.start == str(tmp_path / "begin")
    assert found.pairs[0].path == tmp_path / "pairs.jsonl"
    assert found.collections == (tmp_path / "judged",)
    assert not found.encoder.expansion


def test_a_start_that_is_not_a_directory_stays_a_name(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('start = "owner/encoder"\n[[pairs]]\npath = "pairs.jsonl"\n')
    assert read_recipe(tmp_path / "one.toml").start == "owner/encoder"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"start = ", "is not a TOML file"),
        (b"\xff\xfe", "is not a TOML file"),
        (b'start = "x"\n', "pairs: Field required"),
        (b'start = "x"\npairs = []\n', "pairs: Tuple should have at least 1 item"),
        (b'start = "x"\npiars = 1\n[[pairs]]\npath = "p"\n', "piars: Extra inputs"),
        (b'start = "x"\nlearning_rate = nan\n[[pairs]]\npath = "p"\n', "learning_rate"),
        (b'start = "x"\nsteps = 0\n[[pairs]]\npath = "p"\n', "steps"),
        (b'start = "x"\n[encoder]\nregulariser = "l3"\n[[pairs]]\npath = "p"\n', "encoder.regulariser"),
        (b'start = "x"\n[[pairs]]\npath = "p"\n[[teachers]]\nkind = "dense"\n', "a dense teacher needs a name"),
    ],
)
def test_errors_name_the_bad_member(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_recipe(path)
    assert caught.value.code == "bad_recipe"
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.toml cannot be read"):
        read_recipe(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"contrastive_weight": 0}, "nothing to learn from"),
        ({"negatives": {"sources": ["dense"]}}, "there is no dense teacher"),
        ({"collections": ["a/judged"], "reported": ["b/judged"]}, "two collections have one name"),
        ({"negatives": {"sources": ["index"]}}, "negatives.index"),
        ({"negatives": {"skip": 50, "depth": 50}}, "depth must be greater than skip"),
        ({"encoder": {"document_weighting": "binary"}}, "binary document weights"),
    ],
)
def test_contradictory_members_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        recipe(**changes)


def test_a_variant_changes_one_part_of_the_recipe() -> None:
    whole = recipe(
        teachers=[{"kind": "dense", "name": "d"}, {"kind": "bm25"}],
        negatives={"sources": ["dense", "bm25"]},
        encoder={"l0_threshold": 50},
    )
    found = {variant.name: variant.recipe for variant in ablation_variants(whole)}
    assert found.pop(FULL_RECIPE) == whole
    assert set(found) == {
        "query weighting none", "query weighting idf", "query weighting mlp", "query weighting mlm", "no expansion",
        "document weighting binary", "document weighting mlp", "document weighting expmlp",
        "document weighting cls_mlm", "regulariser none", "regulariser flops", "regulariser l1", "regulariser top_k",
        "no l0 mask", "activation log1p_log1p_relu", "no hard negatives", "no teachers", "no teacher dense d",
        "no teacher bm25",
    }  # fmt: skip
    assert found["no teacher dense d"].negatives.sources == ("bm25",)
    assert found["no teachers"].teachers == whole.teachers, "they filter pairs and choose negatives as before"
    assert not found["no teachers"].distils
    for name, changed in found.items():
        differing = {key for key in TrainingRecipe.model_fields if getattr(changed, key) != getattr(whole, key)}
        allowed = (
            {"distillation_scale"}
            if name == "no teachers"
            else {"teachers", "negatives"}
            if "teacher" in name
            # A single column of passages needs a larger weight for the same penalty.
            else {"negatives", "regulariser_weight"}
            if "negatives" in name
            # Queries of a model have a penalty too.
            else {"encoder", "query_regulariser_weight"}
            if name == "query weighting mlm"
            else {"encoder"}
        )
        assert differing, name
        assert differing <= allowed, name


def test_variants_by_name() -> None:
    assert [variant.name for variant in ablation_variants(recipe(), ["no expansion"])] == [FULL_RECIPE, "no expansion"]
    joined = ablation_variants(recipe(encoder={"regulariser": "flops"}), ["no expansion + query weighting mlm"])
    assert [(one.name, one.against) for one in joined] == [
        (FULL_RECIPE, FULL_RECIPE),
        ("no expansion", FULL_RECIPE),
        ("no expansion + query weighting mlm", "no expansion"),
    ]
    assert (joined[2].recipe.encoder.expansion, joined[2].recipe.encoder.query_weighting) == (False, "mlm")
    with pytest.raises(ConfigurationError, match="no expanse") as caught:
        ablation_variants(recipe(), ["no expanse"])
    assert caught.value.code == "unknown_variant"


def test_a_row_covers_the_selection_collections() -> None:
    figures = dict.fromkeys(("sparse", "hybrid", "weights_a_document", "flops"), 0.5)
    entry = {"mean": 0.5, "collections": {"chosen by": figures, "shown": dict.fromkeys(figures, 0.9)}}
    assert AblationRow.of("x", entry, 1.0, ["shown"]).hybrid == 0.5
    assert AblationRow.of("x", entry, 1.0).hybrid == 0.7


def test_the_table_shows_points() -> None:
    shown = ablation_table(
        [AblationRow(FULL_RECIPE, 0.4, 0.5, 100, 1.5, 60), AblationRow("no expansion", 0.38, 0.51, 40, 0.5, 50)]
    )
    assert "| no expansion | whole | 0.3800 | -2.0 | | | 0.5100 | +1.0 | 40 | 0.50 | 50 |" in shown


def test_a_row_says_whether_its_difference_is_chance() -> None:
    figures = {"toy": dict.fromkeys(("sparse", "hybrid", "weights_a_document", "flops"), 0.5)}
    whole = {"mean": 0.5, "collections": figures, "by_query": {f"toy/{at}": 0.5 for at in range(50)}}
    worse = {"mean": 0.4, "collections": figures, "by_query": {f"toy/{at}": 0.3 + 0.2 * (at % 2) for at in range(50)}}
    same = {"mean": 0.5, "collections": figures, "by_query": {f"toy/{at}": 0.4 + 0.2 * (at % 2) for at in range(50)}}
    found = AblationRow.of("worse", worse, 1.0, reference=whole).difference
    assert found is not None
    assert found["difference"] == pytest.approx(-0.1)
    assert found["low"] < -0.1 < found["high"] < 0
    assert found["p"] < 0.001
    chance = AblationRow.of("same", same, 1.0, reference=whole).difference
    assert chance is not None
    assert chance["low"] < 0 < chance["high"]
    assert chance["p"] > 0.5
    assert AblationRow.of("older", {"mean": 0.5, "collections": figures}, 1.0, reference=whole).difference is None
    table = ablation_table([AblationRow.of("whole", whole, 1.0), AblationRow.of("worse", worse, 1.0, reference=whole)])
    assert "| worse | whole | 0.4000 | -10.0 | -12.8 to -7.2 | 0.000 |" in table


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[4] / "models/training/recipes").glob("*.toml")))
def test_committed_recipes_can_be_read(path: Path) -> None:
    found = read_recipe(path)
    assert found.pairs[0].path.parent == path.parent / "pairs"
    assert not found.collections  # reported collections choose no checkpoint


def test_teachers_beside_the_recipe_are_found(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "one.toml").write_text(
        'start = "x"\n[[pairs]]\npath = "p"\n[[teachers]]\nkind = "sparse"\nname = "ours"\n'
        '[[teachers]]\nkind = "bm25"\n'
        '[[teachers]]\nkind = "dense"\nname = "bge-small-en-v1.5"\n'
    )
    names = [teacher.name for teacher in read_recipe(tmp_path / "one.toml").teachers]
    assert names == [str(tmp_path / "ours"), "", "bge-small-en-v1.5"]


@pytest.mark.parametrize("member", ["regulariser_weight", "distillation_scale", "contrastive_weight"])
def test_numbers_must_be_finite(member: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{member}: Input should be a finite number"):
        recipe(**{member: float("inf")})


def test_a_variant_without_teachers_has_the_same_pairs() -> None:
    whole = recipe(teachers=[{"kind": "bm25"}], consistency={"within": 3}, contrastive_weight=0)
    made = {one.name: one.recipe for one in ablation_variants(whole)}
    assert made["no teachers"].consistency == whole.consistency
    assert made["no teachers"].contrastive_weight == 1, "there must be something to learn from"


def test_a_filter_goes_with_the_last_teacher_that_can_rank() -> None:
    teachers = [{"kind": "bm25"}, {"kind": "cross-encoder", "name": "c"}]
    whole = recipe(
        teachers=teachers, consistency={"within": 3}, negatives={"sources": ["index"], "index": "i", "count": 2}
    )
    made = {one.name: one.recipe for one in ablation_variants(whole)}
    assert made["no teacher bm25"].consistency is None
    assert made["no teacher cross-encoder c"].consistency == whole.consistency
    assert "no hard negatives" not in made, "the cross-encoder would score one passage a query"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": [{"kind": "cross-encoder", "name": "c"}]}, "set negatives.sources"),
        ({"teachers": [{"kind": "scores", "name": "s"}]}, "set negatives.sources"),
        ({"teachers": [{"kind": "scores"}]}, "a scores teacher needs a name"),
        (
            {
                "teachers": [{"kind": "scores", "name": "s"}],
                "negatives": {"sources": ["scores"]},
                "consistency": {"within": 3},
            },
            "consistency needs at least one teacher that",
        ),
        ({"negatives": {"sources": ["siamese"]}}, "there is no siamese teacher"),
        (
            {"teachers": [{"kind": "bm25"}], "distillation_scale": 0, "contrastive_weight": 0},
            "there is nothing to learn from",
        ),
    ],
)
def test_contradicting_parts_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        recipe(**changes)
    assert caught.value.code == "bad_recipe"


def test_a_file_of_scores_lies_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(
        'start = "x"\n[[pairs]]\npath = "p"\n[[teachers]]\nkind = "scores"\nname = "s.jsonl"\n'
        '[negatives]\nsources = ["scores"]\n'
    )
    assert read_recipe(tmp_path / "one.toml").teachers[0].name == str(tmp_path / "s.jsonl")


def test_a_recipe_of_binary_weights_has_variants_too() -> None:
    binary = {"document_weighting": "binary", "expansion": False, "regulariser": "none"}
    names = [one.name for one in ablation_variants(recipe(encoder=binary))]
    assert names == [FULL_RECIPE, "query weighting none", "query weighting idf"]


def test_variants_without_a_penalty_follow_no_density() -> None:
    made = {one.name: one.recipe for one in ablation_variants(recipe(target_weights=60))}
    free = {name for name, variant in made.items() if variant.target_weights is None}
    assert free == {"regulariser none", "regulariser top_k", "document weighting binary"}
    assert made["regulariser top_k"].encoder.top_k == 60
