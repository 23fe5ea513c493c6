"""Harvest of the standard library's docstrings: a program that prints JSON lines.

It imports only the standard library and runs as `python -I -S harvest.py`, without site-packages, so the corpus does
not depend on installed packages. It is a separate process, because importing hundreds of modules changes codecs, event
loop policies and warning filters. A line is {"name", "kind", "module", "signature", "doc"}; kinds are module, class,
function, method and property.
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

# Excluded modules, with the reason.
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
    "encodings": "one module a codec; codecs is the public module",
    # Implementations of public modules on one platform, and modules without names of their own.
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
    """A public name with its kind, its module and its object."""

    name: str
    kind: str
    module: str
    value: object


def list_module_names() -> list[str]:
    """List the public modules and submodules of the standard library, sorted."""
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
    """Yield the public modules of a package from its files, without importing them."""
    for entry in pkgutil.iter_modules(path):
        if not is_public(entry.name) or entry.name in SKIPPED_MODULES:
            continue
        yield f"{package}.{entry.name}"
        if entry.ispkg:
            yield from iter_submodule_names(f"{package}.{entry.name}", [f"{part}/{entry.name}" for part in path])


def is_public(name: str) -> bool:
    """Tell whether a name belongs to the public interface of a module or class."""
    return not name.startswith("_") or name == "__future__"


def import_quietly(name: str) -> types.ModuleType | None:
    """Import a module; None when this Python lacks it or a part of it (a minimal Debian, another platform)."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, AttributeError, ValueError, SystemExit):
        return None


def iter_exports(module: types.ModuleType, name: str) -> Iterator[tuple[str, object]]:
    """Yield the public attributes of a module: those in `__all__`, else the public names that it defines."""
    declared = vars(module) if name == "builtins" else getattr(module, "__all__", None)
    for attribute in sorted(vars(module) if declared is None else set(declared)):
        if not is_public(attribute):
            continue
        value = getattr(module, attribute, None)
        if declared is not None or is_defined_in(value, name):
            yield attribute, value


def is_defined_in(value: object, module: str) -> bool:
    """Check whether a value's `__module__` is the module or its C implementation (`_bisect` for `bisect`)."""
    origin = getattr(value, "__module__", None)
    return origin == module or (isinstance(origin, str) and origin.lstrip("_") == module.rpartition(".")[2])


def object_kind(value: object) -> str | None:
    """Return "class" or "function", or None for other objects."""
    if inspect.isclass(value):
        return "class"
    if inspect.isroutine(value) or isinstance(value, functools._lru_cache_wrapper):
        return "function"
    return None


def iter_members(entry: PublicName, listed: set[int]) -> Iterator[PublicName]:
    """Yield public methods and properties of a class: its own, and those of bases that are not listed themselves."""
    cls = entry.value
    if not isinstance(cls, type):
        return
    inherited = set[type]()
    for base in cls.__mro__[1:]:
        if id(base) in listed and not is_twin(base, entry):
            inherited.update(base.__mro__)
    seen: set[str] = set()
    for base in cls.__mro__:
        if base in inherited:
            continue
        for attribute in sorted(vars(base)):
            value = vars(base)[attribute]
            if not is_public(attribute) or attribute in seen:
                continue
            seen.add(attribute)
            if isinstance(value, property | functools.cached_property):
                yield PublicName(f"{entry.name}.{attribute}", "property", entry.module, value)
            elif inspect.isroutine(value):
                yield PublicName(f"{entry.name}.{attribute}", "method", entry.module, value)


def is_twin(base: type, entry: PublicName) -> bool:
    """Check whether a base class is the C half of a class (`_socket.socket` of `socket.socket`)."""
    return base.__name__ == entry.name.rpartition(".")[2] and base.__module__ == f"_{entry.module}"


def shared_identity(value: object) -> object:
    """Return a key that all names of an object share; for bound methods it has function and owner (`random.choice`)."""
    if inspect.ismethod(value):
        return (id(value.__func__), id(value.__self__))
    if isinstance(value, staticmethod | classmethod):
        return id(value.__func__)
    return id(value)


def name_preference(entry: PublicName) -> tuple[bool, int, bool, int, str]:
    """Return the sort key among the names of an object; the least is the best known.

    The order is: own name before alias (OSError, not IOError), fewest dots (asyncio.sleep, not asyncio.tasks.sleep),
    built-in names (open, not io.open), shortest.
    """
    alias = getattr(entry.value, "__name__", None) != entry.name.rpartition(".")[2]
    return alias, entry.name.count("."), entry.module != "builtins", len(entry.name), entry.name


def collect_names() -> list[PublicName]:
    """Return each public object once, under its best name, sorted by name."""
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
    return sorted([*modules, *things.values(), *list_methods(things.values())], key=lambda entry: entry.name)


def list_methods(things: Collection[PublicName]) -> list[PublicName]:
    """Return the methods of the listed classes, without those that a module also offers as functions.

    `random.choice` is `random.Random.choice` of a hidden instance: only the function is listed.
    """
    listed = {id(entry.value) for entry in things}
    functions = {id(entry.value.__func__) for entry in things if inspect.ismethod(entry.value)}
    methods: dict[object, PublicName] = {}
    for entry in things:
        for member in iter_members(entry, listed):
            if shared_identity(member.value) not in functions:
                keep_best(methods, member)
    return list(methods.values())


def keep_best(things: dict[object, PublicName], entry: PublicName) -> None:
    """Record an object under the best name so far."""
    known = things.setdefault(shared_identity(entry.value), entry)
    if name_preference(entry) < name_preference(known):
        things[shared_identity(entry.value)] = entry


def own_docstring(entry: PublicName) -> str:
    """Return an object's own docstring, never an inherited one; a class may have that of its `__init__`."""
    value = entry.value
    if isinstance(value, type):
        init = vars(value).get("__init__")
        text = vars(value).get("__doc__") or (init.__doc__ if inspect.isfunction(init) else None)
    else:
        text = getattr(value, "__doc__", None)
    return inspect.cleandoc(text) if isinstance(text, str) else ""


def call_signature(entry: PublicName) -> str:
    """Return a call's signature without annotations; empty when Python does not know it."""
    value = entry.value.__func__ if isinstance(entry.value, staticmethod | classmethod) else entry.value
    if entry.kind in ("module", "property") or not callable(value):
        return ""
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError, AttributeError, NameError):  # the last two: some defaults exist only on a terminal
        return ""
    bare = [
        parameter.replace(annotation=parameter.empty, default=stable_default(parameter.default))
        for parameter in signature.parameters.values()
    ]
    if entry.kind == "method" and bare and bare[0].name in ("self", "cls", "type"):
        del bare[0]
    try:
        text = str(inspect.Signature(bare))
    except ValueError:
        return ""
    return entry.name.rpartition(".")[2] + text


def stable_default(default: object) -> object:
    """Return a default that is the same on every machine, else dots: some are environment, paths or addresses."""
    if default is inspect.Parameter.empty or default is None or isinstance(default, bool | int | float):
        return default
    if isinstance(default, str | bytes | tuple) and (not default or PLAIN_STRING.fullmatch(repr(default))):
        return default
    return HiddenDefault()


class HiddenDefault:
    """A hidden default, shown as dots."""

    def __repr__(self) -> str:
        return "..."


def has_description(doc: str, name: str) -> bool:
    """Check whether a docstring has at least two words besides the call itself."""
    lines = [line for line in doc.splitlines() if not line.startswith(name.rpartition(".")[2] + "(")]
    return len(WORD.findall(" ".join(lines) or doc)) >= 2


def main() -> None:
    warnings.simplefilter("ignore")
    output, sys.stdout = sys.stdout, io.StringIO()  # output of imported modules is not part of the corpus
    for entry in collect_names():
        doc = own_docstring(entry)
        if has_description(doc, entry.name):
            record = {"name": entry.name, "kind": entry.kind, "module": entry.module}
            record |= {"signature": call_signature(entry), "doc": MEMORY_ADDRESS.sub("", doc)}
            output.write(json.dumps(record, ensure_ascii=True) + "\n")
    output.flush()


if __name__ == "__main__":
    main()
