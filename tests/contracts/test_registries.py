"""The contract of every registered object: adding it to its registry is enough to have it tested here."""

from __future__ import annotations

import inspect
import re

import pytest
import typer
from pydantic import BaseModel, ValidationError

from cli.main import VERBS
from features.compute.algebra import VIEWS
from features.compute.engines import ENGINES
from features.compute.spec import FeatureSpec
from features.data.sources import SOURCES, Source
from features.definitions import FEATURES
from features.profiles.tags import INPUTS, TAGS
from models.kinds import MODELS, model_class
from models.recommend import RECOMMENDERS
from models.recommend.base import Choice, Recommender
from models.recommend.scene import DEFAULT_SCENE, PURCHASED_OPTIONS, SCENES
from qianmian.errors import UsageError
from qianmian.schema import REGISTERED_PREFIX, TABLES, TAG_CATEGORIES, registered_name
from serving.endpoints import ENDPOINTS
from serving.predictions import PREDICTIONS
from serving.requests import Request
from serving.responses import Response
from training.jobs import JOBS
from training.tasks import TASKS

SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LOWER = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
REGISTRIES = {
    "tag": TAGS,
    "model": MODELS,
    "recommender": RECOMMENDERS,
    "job": JOBS,
    "prediction": PREDICTIONS,
    "scene": SCENES,
    "task": TASKS,
    "source": SOURCES,
    "engine": ENGINES,
    "endpoint": ENDPOINTS,
    "verb": VERBS,
}
HOOKS = ("_fit", "_scores", "_state", "_restore")


def by_name(things):
    return pytest.mark.parametrize("name", list(things))


def own_docstring(thing):
    """The docstring defined by the object itself, not inherited; '' if it has none."""
    return (vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__) or ""


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_registry_is_not_empty_and_an_unknown_name_lists_the_known_ones(kind):
    registry = REGISTRIES[kind]
    assert registry.kind == kind
    assert len(registry) == len(set(registry)) > 0
    assert "no such thing" not in registry
    with pytest.raises(UsageError, match=f"unknown {kind}") as caught:
        registry["no such thing"]
    assert caught.value.allowed == ", ".join(registry)


# ---- features --------------------------------------------------------------------------------------------------------

FEATURE = pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)


def test_there_are_at_least_a_hundred_and_twenty_features():
    names = [feature.name for feature in FEATURES]
    assert len(names) == len(set(names)) >= 120


@FEATURE
def test_a_feature_has_a_unit_a_description_and_an_owner(feature):
    assert feature.unit or feature.categorical
    assert feature.description
    assert feature.description == feature.description.strip()
    assert feature.owner
    assert isinstance(feature.ttl_days, int)
    assert feature.ttl_days > 0
    assert feature.view in (VIEWS if feature.aggregate != "quotient" else ("",))


@FEATURE
def test_the_name_of_a_feature_is_snake_case_and_carries_its_window(feature):
    assert SNAKE.fullmatch(feature.name)
    said = re.search(r"_(\d+)d$", feature.name)
    assert (int(said[1]) if said else None) == feature.window_days
    assert not feature.name.startswith("profile_")  # kept for the attributes of a source
    if feature.window_days is not None:
        assert feature.window_days > 0
        assert str(feature.window_days) in feature.description or feature.aggregate == "trend"


@FEATURE
def test_a_feature_is_read_back_unchanged_from_its_spec(feature):
    spec = FeatureSpec((feature,), (("a", "b") if feature.categorical else (),))
    assert FeatureSpec.of(spec.as_dict()) == spec
    assert FeatureSpec.of(spec.as_dict()).hash == spec.hash


# ---- tags ------------------------------------------------------------------------------------------------------------


@by_name(TAGS)
def test_a_tag(name):
    tag = TAGS[name]
    assert tag.name == name
    assert SNAKE.fullmatch(name)
    assert tag.category in TAG_CATEGORIES
    assert tag.description
    assert tag.owner
    assert tag.ttl_days > 0
    declared = {*INPUTS, *(f"profile_{column}" for column in TABLES["profiles"].names)}
    assert set(tag.inputs) <= declared
    assert len(set(tag.inputs)) == len(tag.inputs)
    assert (tag.how == "model") == (tag.rule is None) == (not tag.inputs)
    assert (tag.how == "statistic") == (tag.fit is not None)
    assert len(set(tag.values)) == len(tag.values)
    assert all(SNAKE.fullmatch(value) for value in tag.values)


def test_tags_cover_every_category_kind_and_method():
    assert {tag.category for tag in TAGS.values()} == set(TAG_CATEGORIES)
    assert {tag.kind for tag in TAGS.values()} == {"static", "dynamic"}
    assert {tag.how for tag in TAGS.values()} == {"rule", "statistic", "model"}


# ---- models ----------------------------------------------------------------------------------------------------------


@by_name(MODELS)
def test_a_model_can_be_saved_and_loaded(name):
    model = model_class(name)
    assert SNAKE.fullmatch(name)
    assert own_docstring(model)
    assert list(inspect.signature(model.save).parameters) == ["self", "folder"]
    assert inspect.ismethod(model.load)  # a class method
    assert list(inspect.signature(model.load).parameters) == ["folder"]


@by_name(MODELS)
def test_a_model_can_be_made_without_arguments_and_only_stores_them(name):
    signature = inspect.signature(model_class(name))
    assert all(parameter.default is not parameter.empty for parameter in signature.parameters.values())
    made = model_class(name)()
    assert {attribute for attribute in vars(made) if not attribute.startswith("_")} == set(signature.parameters)


@by_name(RECOMMENDERS)
def test_a_recommender(name):
    recommender = RECOMMENDERS[name]
    assert issubclass(recommender, Recommender)
    assert not inspect.isabstract(recommender)
    assert recommender.name == name
    assert model_class(name) is recommender
    assert isinstance(recommender.supports_cold, bool)
    assert isinstance(recommender.supports_similar, bool)
    overridden = {hook for hook in vars(Recommender) if getattr(recommender, hook) is not getattr(Recommender, hook)}
    assert recommender.supports_similar == bool({"item_vectors", "_similarity"} & overridden)
    assert recommender.supports_evidence == ("_evidence" in overridden)
    for method in ("item_vectors", "purchase_counts", "expected_days", "score_unseen", "similar_to"):
        assert getattr(recommender, f"supports_{method}") == (method in overridden)
    assert isinstance(recommender.supports_fold_in, bool)
    assert isinstance(recommender.returns_partial_lists, bool)
    parameters = inspect.signature(recommender).parameters
    for parameter, space in recommender.search_space.items():
        default = parameters[parameter].default  # searched names are parameters whose defaults lie in the space
        if isinstance(space, Choice):
            assert default in space.values
        else:
            assert space.low < space.high
            assert default is None or space.low <= default <= space.high
            assert space.low > 0 or not space.log
    assert all(getattr(recommender, hook) is not getattr(Recommender, hook) for hook in HOOKS)


# ---- jobs and sources ------------------------------------------------------------------------------------------------


@by_name(JOBS)
def test_a_job(name):
    job = JOBS[name]
    assert job.name == name
    assert LOWER.fullmatch(name)
    assert job.description
    assert list(inspect.signature(job.run).parameters) == ["context"]
    assert registered_name(name) == REGISTERED_PREFIX + name


@by_name(SOURCES)
def test_a_source(name):
    source = SOURCES[name]
    assert isinstance(source, type)
    assert issubclass(source, Source)
    assert not inspect.isabstract(source)
    assert LOWER.fullmatch(name)
    assert own_docstring(source)
    assert getattr(source, "name", name) == name  # the name of a `files` source comes from its configuration


@by_name(ENGINES)
def test_an_engine(name):
    engine = ENGINES[name]
    assert LOWER.fullmatch(name)
    assert engine.name == name
    assert own_docstring(engine)
    assert next(iter(inspect.signature(engine).parameters)) == "lake"
    assert list(inspect.signature(engine.table).parameters) == ["self", "features", "as_of"]


# ---- scenes and tasks ------------------------------------------------------------------------------------------------


@by_name(SCENES)
def test_a_scene(name):
    scene = SCENES[name]
    assert scene.name == name
    assert SNAKE.fullmatch(name)
    assert scene.description
    assert scene.job in JOBS
    assert scene.purchased
    assert set(scene.purchased) <= set(PURCHASED_OPTIONS)
    assert scene.needs_model or scene.accepts_items, "without a model the items of the request answer"


@by_name(SCENES)
def test_a_scene_names_its_task_or_is_measured_by_its_own_job(name):
    scene = SCENES[name]
    assert (scene.task is None) == (scene.job != "recommend")
    if scene.task is not None:
        assert TASKS[scene.task].name == name, "the task of a scene has its name"


@by_name(TASKS)
def test_a_task_belongs_to_a_scene_or_is_a_cold_case(name):
    task = TASKS[name]
    assert task.name == name
    assert task.description
    assert (name in SCENES) == (name in {scene.task for scene in SCENES.values()})
    assert name in SCENES or name.startswith("cold ")


def test_the_default_scene_has_a_task():
    assert SCENES[DEFAULT_SCENE].task in TASKS


# ---- endpoints -------------------------------------------------------------------------------------------------------


def models_in(model, seen=()):
    """The model and, recursively, the models of its fields."""
    found = [model]
    for field in model.model_fields.values():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in (*seen, *found):
                found += models_in(kind, (*seen, *found))
    return found


@by_name(ENDPOINTS)
def test_an_endpoint(name):
    endpoint = ENDPOINTS[name]
    assert endpoint.route == name
    assert re.fullmatch(r"/[a-z]+(-[a-z]+)*", name)
    assert endpoint.summary
    assert issubclass(endpoint.request, Request)
    assert issubclass(endpoint.response, Response)
    assert {"model", "as_of", "stale"} <= set(endpoint.response.model_fields)
    assert own_docstring(endpoint.request)
    for part in (endpoint.handle, endpoint.response_metadata, endpoint.check, endpoint.estimated_ms):
        assert callable(part)


@by_name(ENDPOINTS)
def test_a_request_forbids_unknown_fields_everywhere_and_coerces_nothing(name):
    for model in models_in(ENDPOINTS[name].request):
        assert (model.model_config.get("extra"), model.model_config.get("strict")) == ("forbid", True), model
    with pytest.raises(ValidationError) as caught:
        ENDPOINTS[name].request.model_validate({"no_such_field": 1})
    assert ("no_such_field",) in [error["loc"] for error in caught.value.errors() if error["type"] == "extra_forbidden"]
    with pytest.raises(ValidationError) as caught:
        ENDPOINTS[name].request.model_validate({"validate_only": "yes"})
    assert ("validate_only",) in [error["loc"] for error in caught.value.errors()]


@by_name(ENDPOINTS)
def test_every_field_of_a_request_can_be_described_in_the_schema(name):
    schema = ENDPOINTS[name].request.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(ENDPOINTS[name].request.model_fields)


# ---- verbs -----------------------------------------------------------------------------------------------------------


@by_name(VERBS)
def test_a_verb_has_a_help_text(name):
    verb = VERBS[name]
    assert LOWER.fullmatch(name)
    if isinstance(verb, typer.Typer):
        assert verb.info.help
        assert verb.registered_commands
        assert all(own_docstring(command.callback) for command in verb.registered_commands)
    else:
        assert verb.__name__.rstrip("_") == name
        assert own_docstring(verb)


@by_name(VERBS)
def test_every_verb_takes_a_workspace_and_all_but_serve_print_json(name):
    verb = VERBS[name]
    commands = [command.callback for command in verb.registered_commands] if isinstance(verb, typer.Typer) else [verb]
    for command in commands:
        parameters = inspect.signature(command).parameters
        assert "workspace" in parameters
        assert "as_json" in parameters or name == "serve"
