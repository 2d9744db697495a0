"""What comes over the wire is data: read from the sources, for everything that a message can reach."""

import ast
import functools
from pathlib import Path

import pytest

from tests.test_imports import MODULES, imports_of, name_of, within

# Where messages arrive and are acted on; what these import of ours is looked at too, but for the exceptions.
ENTRANCES = ("common.protocol", "common.transport", "common.sockets", "common.security", "scorer", "trainer")
# These import what a person names (--data, --model, --method), from a table or as module:callable.
BY_NAME = {"common.imports", "common.data.sources", "common.selection.methods"}
HANDLES_MESSAGES = (
    "common.protocol", "common.transport", "common.sockets", "common.receiving", "common.inflow", "common.security",
    "common.buckets", "common.weights", "common.payload_room",
    "scorer.link", "scorer.dialogue", "scorer.fetcher", "scorer.inbox", "scorer.answers", "scorer.staging",
    "scorer.landing", "scorer.ranks", "scorer.other_rank", "scorer.line", "scorer.turns", "scorer.versions",
    "trainer.service", "trainer.sessions", "trainer.candidates_desk", "trainer.weights_desk", "trainer.predictor_desk",
    "trainer.reception", "trainer.doorkeeper", "trainer.patience", "trainer.intake", "trainer.pool",
)  # fmt: skip
REFUSED_CALLS = {
    "import_module", "find_spec", "spec_from_file_location", "exec_module", "load_module", "entry_points",
    "run_module", "run_path", "resolve_name", "recv_pyobj", "send_pyobj", "add_safe_globals", "load_library",
}  # fmt: skip
REFUSED_BUILTINS = {
    f"{prefix}{name}" for prefix in ("", "builtins.") for name in ("eval", "exec", "compile", "__import__")
}  # as the whole of what is called: a model has an eval() too
REFUSED_MODULES = {
    "pickle", "cPickle", "_pickle", "pickletools", "copyreg", "marshal", "shelve", "dbm", "dill", "cloudpickle",
    "joblib", "jsonpickle", "yaml", "ruamel", "multiprocessing", "xmlrpc", "runpy", "imp", "code", "codeop",
    "torch.multiprocessing", "torch.package", "torch.hub", "torch.jit", "torch.load", "torch.serialization",
    "numpy.load", "tensorflow", "onnx",
}  # fmt: skip
ACTS = {"subprocess", "os.system", "os.popen", "os.execv", "os.spawnv", "ctypes", "urllib.request", "http", "requests"}
"""What no module that handles messages has any use for."""

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


def _is_fixed(call: ast.Call) -> bool:
    """Whether every argument is written out, as the name of a package that is looked for."""
    return bool(call.args) and all(isinstance(given, ast.Constant) for given in call.args)


@functools.cache
def faults_of(path: Path) -> list[str]:
    """What a module does that could make data act: what it imports and calls."""
    found = [name for name in imported_by(path) if within(name, *REFUSED_MODULES)]
    for call in calls_of(path):
        what, given = ast.unparse(call.func), {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        is_wrong = (
            (named(call) in REFUSED_CALLS and not _is_fixed(call))
            or what in REFUSED_BUILTINS
            or within(what, *REFUSED_MODULES - {"torch.load", "numpy.load"})
            or (what == "torch.load" and given.get("weights_only") != "True")
            or given.get("allow_pickle", "False") != "False"
        )
        if is_wrong:
            found.append(ast.unparse(call))
    return found


def test_nothing_that_a_message_reaches_can_make_data_act() -> None:
    wrong = {name_of(path): faults_of(path) for path in REACHED}
    assert {name: faults for name, faults in wrong.items() if faults} == {}


def test_files_are_loaded_as_data() -> None:
    wrong = {name_of(path): faults_of(path) for path in MODULES}
    assert {name for name, faults in wrong.items() if faults} <= BY_NAME


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "import yaml",
        "from torch import load",
        "from torch.serialization import load",
        "from multiprocessing.connection import Client",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.jit.load(path)",
        "torch.serialization.add_safe_globals([kind])",
        "np.load(path, allow_pickle=True)",
        "np.lib.format.read_array(file, allow_pickle=allowed)",
        "eval(text)",
        "builtins.exec(text)",
        "compile(text, name, 'exec')",
        "__import__(name)",
        "importlib.import_module(name)",
        "importlib.util.spec_from_file_location(name, path)",
        "pkgutil.resolve_name(name)",
        "runpy.run_path(path)",
        "socket.recv_pyobj()",
    ],
)
def test_this_would_be_found(line: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(line)
    assert faults_of(module)


def test_this_is_left_alone(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "model.eval(); torch.compile(model); re.compile(text); torch.load(path, weights_only=True); np.load(path)"
    )
    assert faults_of(module) == []


def test_modules_that_handle_messages_start_nothing_and_open_no_address() -> None:
    for path in MODULES:
        if within(name_of(path), *HANDLES_MESSAGES):
            called = [ast.unparse(call.func) for call in calls_of(path)]
            assert not [name for name in (*imported_by(path), *called) if within(name, *ACTS)], name_of(path)


def test_the_wire_is_among_what_is_looked_at() -> None:
    names = {name_of(path) for path in REACHED}
    assert {"common.protocol.wire", "common.transport", "scorer.link", "trainer.service", "common.buckets"} <= names


def test_modules_that_handle_messages_do_not_know_those_that_import_by_name() -> None:
    for path in MODULES:
        if within(name_of(path), *HANDLES_MESSAGES):
            assert not [name for name in imported_by(path) if within(name, *BY_NAME)], name_of(path)
