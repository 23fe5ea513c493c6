"""Read the docstrings of the running Python's standard library; run as a child process, prints JSON lines.

Imports nothing but the standard library, so ``python -I -S harvest.py`` runs it on a bare interpreter with no
site-packages on the path: the corpus is then the same whatever is installed beside Python. It is a program of its own
because importing hundreds of modules leaves traces (codecs, event loop policies, warnings filters) that have no place
in the process that asks.

Each line is ``{"name", "kind", "module", "signature", "doc"}``, of kind module, class, function, method or property.
"""

import functools
import importlib
import importlib.util
import inspect
import io
import json
import pkgutil
import re
import sys
import types
import warnings
from collections.abc import Collection, Iterator
from typing import NamedTuple

# Modules that are left out, with the reason.
SKIPPED_MODULES = {
    "antigravity": "opens a browser",
    "this": "prints a poem",
    "__main__": "runs a program",
    "idlelib": "an editor: internals, and it needs a screen",
    "tkinter": "needs a screen, and Debian packages it apart",
    "turtle": "needs tkinter",
    "turtledemo": "needs tkinter",
    "test": "Python's own tests",
    "tests": "tests of a package",
    "lib2to3": "internals of a converter, gone in 3.13",
    "distutils": "gone in 3.12, and Debian packages it apart",
    "ensurepip": "installs pip",
    "pydoc_data": "texts of pydoc",
    "encodings": "one module a codec, all alike: the codecs module is the public door",
    # The modules below are how a public module is made on one platform, or hold nothing of their own.
    "posix": "public as os",
    "nt": "public as os",
    "posixpath": "public as os.path",
    "ntpath": "public as os.path",
    "genericpath": "public as os.path",
    "sre_compile": "public as re",
    "sre_constants": "public as re",
    "sre_parse": "public as re",
    "nturl2path": "public as urllib.request",
    "opcode": "public as dis",
}

MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
PLAIN_STRING = re.compile(r"b?'[^/\\]{0,20}'")  # no path, nothing long
WORD = re.compile(r"[A-Za-z]{2,}")


class PublicName(NamedTuple):
    """One public name: where it lives, what it is and the object behind it."""

    name: str
    kind: str
    module: str
    value: object


def list_module_names() -> list[str]:
    """The public modules of the standard library, submodules included, sorted."""
    names = {"os.path"}
    for top in sys.stdlib_module_names:
        if not is_public(top) or top in SKIPPED_MODULES:
            continue
        names.add(top)
        spec = importlib.util.find_spec(top)
        if spec is not None and spec.submodule_search_locations is not None:
            names.update(iter_submodule_names(top, list(spec.submodule_search_locations)))
    return sorted(names)


def iter_submodule_names(package: str, path: list[str]) -> Iterator[str]:
    """The public modules below a package, found by their files so that nothing is imported to list them."""
    for entry in pkgutil.iter_modules(path):
        if not is_public(entry.name) or entry.name in SKIPPED_MODULES:
            continue
        yield f"{package}.{entry.name}"
        if entry.ispkg:
            yield from iter_submodule_names(f"{package}.{entry.name}", [f"{part}/{entry.name}" for part in path])


def is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__future__"


def import_quietly(name: str) -> types.ModuleType | None:
    """The module, or None where this Python lacks it or a part of it (a minimal Debian, another platform)."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, AttributeError, ValueError, SystemExit):
        return None


def iter_exports(module: types.ModuleType, name: str) -> Iterator[tuple[str, object]]:
    """The public attributes of a module: its ``__all__``, or else what it defines itself under a public name."""
    declared = vars(module) if name == "builtins" else getattr(module, "__all__", None)
    for attribute in sorted(vars(module) if declared is None else set(declared)):
        if not is_public(attribute):
            continue
        value = getattr(module, attribute, None)
        if declared is not None or is_defined_in(value, name):
            yield attribute, value


def is_defined_in(value: object, module: str) -> bool:
    """Whether a value belongs to a module: it says so, or names the module's C twin (``_bisect`` for ``bisect``)."""
    origin = getattr(value, "__module__", None)
    return origin == module or (isinstance(origin, str) and origin.lstrip("_") == module.rpartition(".")[2])


def object_kind(value: object) -> str | None:
    if inspect.isclass(value):
        return "class"
    if inspect.isroutine(value) or isinstance(value, functools._lru_cache_wrapper):
        return "function"
    return None


def iter_members(found: PublicName, listed: set[int]) -> Iterator[PublicName]:
    """The public methods and properties of a class: its own, and those from bases that no listed class stands for."""
    cls = found.value
    if not isinstance(cls, type):
        return
    elsewhere = set[type]()
    for base in cls.__mro__[1:]:
        if id(base) in listed and not is_twin(base, found):
            elsewhere.update(base.__mro__)
    seen: set[str] = set()
    for base in cls.__mro__:
        if base in elsewhere:
            continue
        for attribute in sorted(vars(base)):
            value = vars(base)[attribute]
            if not is_public(attribute) or attribute in seen:
                continue
            seen.add(attribute)
            if isinstance(value, property | functools.cached_property):
                yield PublicName(f"{found.name}.{attribute}", "property", found.module, value)
            elif inspect.isroutine(value):
                yield PublicName(f"{found.name}.{attribute}", "method", found.module, value)


def is_twin(base: type, found: PublicName) -> bool:
    """Whether a base class is the C half of a class under the same name (``_socket.socket`` of ``socket.socket``)."""
    return base.__name__ == found.name.rpartition(".")[2] and base.__module__ == f"_{found.module}"


def shared_identity(value: object) -> object:
    """What two names of one thing share. Bound methods compare by function and owner (``random.choice``)."""
    if inspect.ismethod(value):
        return (id(value.__func__), id(value.__self__))
    if isinstance(value, staticmethod | classmethod):
        return id(value.__func__)
    return id(value)


def name_preference(found: PublicName) -> tuple[bool, int, bool, int, str]:
    """Sort key among the names of one thing; the least is the one that people know.

    Its own name before an alias (OSError, not IOError), then the fewest dots (asyncio.sleep, not asyncio.tasks.sleep),
    then built-in names (open, not io.open), then the shortest.
    """
    alias = getattr(found.value, "__name__", None) != found.name.rpartition(".")[2]
    return alias, found.name.count("."), found.module != "builtins", len(found.name), found.name


def collect_names() -> list[PublicName]:
    """Every public thing once, under its best name, sorted by name."""
    modules: list[PublicName] = []
    things: dict[object, PublicName] = {}
    for name in list_module_names():
        module = import_quietly(name)
        if module is None:
            continue
        modules.append(PublicName(name, "module", name, module))
        for attribute, value in iter_exports(module, name):
            kind = object_kind(value)
            if kind is not None:
                keep_best(things, PublicName(f"{name}.{attribute}", kind, name, value))
    return sorted([*modules, *things.values(), *list_methods(things.values())], key=lambda found: found.name)


def list_methods(things: Collection[PublicName]) -> list[PublicName]:
    """The methods of the classes among these things, less those that a module offers as functions of its own.

    ``random.choice`` is ``random.Random.choice`` of a hidden instance: the function is listed, the method is not.
    """
    listed = {id(found.value) for found in things}
    functions = {id(found.value.__func__) for found in things if inspect.ismethod(found.value)}
    methods: dict[object, PublicName] = {}
    for found in things:
        for member in iter_members(found, listed):
            if shared_identity(member.value) not in functions:
                keep_best(methods, member)
    return list(methods.values())


def keep_best(things: dict[object, PublicName], found: PublicName) -> None:
    """Enter a thing under the best of the names seen so far."""
    known = things.setdefault(shared_identity(found.value), found)
    if name_preference(found) < name_preference(known):
        things[shared_identity(found.value)] = found


def own_docstring(found: PublicName) -> str:
    """The thing's own docstring, never an inherited one; for a class without any, that of its ``__init__``."""
    value = found.value
    if isinstance(value, type):
        init = vars(value).get("__init__")
        text = vars(value).get("__doc__") or (init.__doc__ if inspect.isfunction(init) else None)
    else:
        text = getattr(value, "__doc__", None)
    return inspect.cleandoc(text) if isinstance(text, str) else ""


def call_signature(found: PublicName) -> str:
    """How the thing is called, without annotations; empty where Python does not know."""
    value = found.value.__func__ if isinstance(found.value, staticmethod | classmethod) else found.value
    if found.kind in ("module", "property") or not callable(value):
        return ""
    try:
        known = inspect.signature(value)
    except (ValueError, TypeError, AttributeError, NameError):  # the last two: defaults that exist only on a terminal
        return ""
    bare = [
        part.replace(annotation=part.empty, default=stable_default(part.default)) for part in known.parameters.values()
    ]
    if found.kind == "method" and bare and bare[0].name in ("self", "cls", "type"):
        del bare[0]
    try:
        text = str(inspect.Signature(bare))
    except ValueError:
        return ""
    return found.name.rpartition(".")[2] + text


def stable_default(default: object) -> object:
    """A default that reads the same on every machine, or dots: some are the environment, a path or an address."""
    if default is inspect.Parameter.empty or default is None or isinstance(default, bool | int | float):
        return default
    if isinstance(default, str | bytes | tuple) and (not default or PLAIN_STRING.fullmatch(repr(default))):
        return default
    return HiddenDefault()


class HiddenDefault:
    """A default that is not shown."""

    def __repr__(self) -> str:
        return "..."


def has_description(doc: str, name: str) -> bool:
    """Whether a docstring tells more than the name: at least two words that are not the call itself."""
    lines = [line for line in doc.splitlines() if not line.startswith(name.rpartition(".")[2] + "(")]
    return len(WORD.findall(" ".join(lines) or doc)) >= 2


def main() -> None:
    warnings.simplefilter("ignore")
    real, sys.stdout = sys.stdout, io.StringIO()  # whatever a module prints on import is not part of the corpus
    for found in collect_names():
        doc = own_docstring(found)
        if has_description(doc, found.name):
            record = {"name": found.name, "kind": found.kind, "module": found.module}
            record |= {"signature": call_signature(found), "doc": MEMORY_ADDRESS.sub("", doc)}
            real.write(json.dumps(record, ensure_ascii=True) + "\n")
    real.flush()


if __name__ == "__main__":
    main()
