"""What comes over the wire is data: read from the sources, for everything that a message can reach."""

import ast
import functools
from pathlib import Path

from tests.test_imports import MODULES, imports_of, name_of, top, within

# Where messages arrive and are acted on; what these import of ours is looked at too, but for the exceptions.
ENTRANCES = ("common.protocol", "common.transport", "common.sockets", "common.security", "scorer", "trainer")
# These import what a person names (--data, --model, --method), from a table or as module:callable.
BY_NAME = {"common.imports", "common.data.sources", "common.selection.methods"}
HANDLES_MESSAGES = (
    "common.protocol", "common.transport", "common.sockets", "common.security", "common.buckets", "common.weights",
    "scorer.link", "scorer.fetcher", "scorer.inbox", "scorer.answers", "scorer.staging",
    "trainer.service", "trainer.sessions", "trainer.candidates_desk", "trainer.weights_desk",
    "trainer.predictor_desk", "trainer.pool",
)  # fmt: skip
REFUSED_CALLS = {"import_module", "run_module", "run_path", "resolve_name", "recv_pyobj", "send_pyobj"}
REFUSED_BUILTINS = {"eval", "exec", "__import__", "builtins.eval", "builtins.exec"}  # a model has an eval() too
REFUSED_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "imp"}

SEEN = [path for path in MODULES if within(name_of(path), *ENTRANCES)]


imported_by = functools.cache(imports_of)


def reached() -> list[Path]:
    """The entrances, and what of ours they import, and so on."""
    paths = {name_of(path): path for path in MODULES}
    waiting, seen = [name_of(path) for path in SEEN], set[str]()
    while waiting:
        name = waiting.pop()
        while name and name not in paths:
            name = name.rpartition(".")[0]
        if name and name not in seen and name not in BY_NAME:
            seen.add(name)
            waiting += imported_by(paths[name])
    return [paths[name] for name in sorted(seen)]


REACHED = reached()


@functools.cache
def calls_of(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def named(call: ast.Call) -> str:
    """The last part of what is called."""
    function = call.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def test_nothing_is_unpickled_evaluated_or_imported_by_name() -> None:
    imported = [(name_of(path), name) for path in REACHED for name in imported_by(path) if top(name) in REFUSED_MODULES]
    called = [
        (name_of(path), ast.unparse(call))
        for path in REACHED
        for call in calls_of(path)
        if named(call) in REFUSED_CALLS or ast.unparse(call.func) in REFUSED_BUILTINS
    ]
    assert imported + called == []


def test_files_are_loaded_as_data() -> None:
    wrong = []
    for path in MODULES:
        for call in calls_of(path):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            what = ast.unparse(call.func)
            if what == "torch.load" and given.get("weights_only") != "True":
                wrong.append((name_of(path), ast.unparse(call)))
            if what in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
                wrong.append((name_of(path), ast.unparse(call)))
    assert wrong == []


def test_the_wire_is_among_what_is_looked_at() -> None:
    names = {name_of(path) for path in REACHED}
    assert {"common.protocol.wire", "common.transport", "scorer.link", "trainer.service", "common.buckets"} <= names


def test_modules_that_handle_messages_do_not_know_those_that_import_by_name() -> None:
    for path in MODULES:
        if within(name_of(path), *HANDLES_MESSAGES):
            assert not [name for name in imported_by(path) if within(name, *BY_NAME)], name_of(path)
