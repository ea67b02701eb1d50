"""Functions, decorators and base classes that do nothing but give a value, by the dotted name they are imported under.

A call of anything else at the top level of a module counts as an effect: it may register, configure, print or draw a
random number. None of these calls a function that it is given, and no base class keeps a list of its subclasses.
"""

from __future__ import annotations

import builtins

BUILTINS = frozenset(
    """bool bytes complex dict enumerate float frozenset int len list max min range reversed round set slice sorted str
    sum tuple zip abs divmod pow chr ord repr hash property staticmethod classmethod object""".split()
)
"""Builtins that may be called; sorted, min and max without `key=`."""

_MODULES = {
    "abc": "ABC ABCMeta abstractmethod",
    "collections": "namedtuple OrderedDict defaultdict Counter deque ChainMap UserDict UserList",
    "collections.abc": "*",
    "contextlib": "contextmanager asynccontextmanager nullcontext AbstractContextManager ContextDecorator",
    "contextvars": "ContextVar",
    "copy": "copy deepcopy",
    "dataclasses": "dataclass field KW_ONLY",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "enum": "Enum IntEnum StrEnum Flag IntFlag EnumMeta EnumType auto unique",
    "fractions": "Fraction",
    "functools": "cache lru_cache cached_property wraps singledispatch singledispatchmethod total_ordering partial "
    "partialmethod",
    "logging": "getLogger",
    "math": "*",
    "operator": "itemgetter attrgetter methodcaller",
    "os.path": "join dirname basename abspath normpath splitext realpath",
    "pathlib": "Path PurePath PosixPath PurePosixPath",
    "re": "compile escape",
    "string": "Template",
    "textwrap": "dedent indent",
    "threading": "Lock RLock local",
    "types": "MappingProxyType SimpleNamespace",
    "typing": "*",
    "typing_extensions": "*",
    "uuid": "UUID",
    "labmake": "rule plan step source each find glob group py r julia script sh",
    "numpy": "array asarray arange linspace logspace geomspace zeros ones full eye identity diag deg2rad rad2deg "
    "sqrt exp log log2 log10 sin cos tan dtype float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 "
    "uint64 bool_ complex64 complex128 ndarray concatenate meshgrid",
    "numpy.random": "default_rng SeedSequence",
    "pandas": "DataFrame Series Timestamp Timedelta Index date_range CategoricalDtype Categorical",
    "pydantic": "BaseModel Field ConfigDict",
    "sklearn.base": "BaseEstimator TransformerMixin ClassifierMixin RegressorMixin",
    "torch": "device tensor",
    "torch.nn": "Module",
    "torch.utils.data": "Dataset IterableDataset",
}

METHODS = frozenset(
    """split rsplit splitlines join items keys values copy format upper lower title strip lstrip rstrip replace
    startswith endswith encode decode count index get union intersection difference joinpath with_suffix with_name
    with_stem as_posix resolve absolute""".split()
)
"""Methods of values that a module's text shows, which leave them as they are."""


def is_silent(dotted: str) -> bool:
    """Is this name, imported from outside of the project, known to do nothing but give a value?"""
    module, _, name = dotted.rpartition(".")
    outer, _, owner = module.rpartition(".")
    return _known(module, name) or (name in _CLASS and _known(outer, owner))


def _known(module: str, name: str) -> bool:
    names = _TABLE.get(module)
    return names is not None and (name in names or "*" in names)


_TABLE = {module: frozenset(names.split()) for module, names in _MODULES.items()}
_CLASS = frozenset({"fromkeys", "fromisoformat"})
"""Methods of the classes above that make a value."""


def is_silent_builtin(name: str) -> bool:
    """May this builtin be called, or decorate?"""
    return name in BUILTINS


def is_silent_base(dotted: str) -> bool:
    """Is this a base class from outside of the project that does nothing when it is extended?"""
    if "." not in dotted:
        return isinstance(getattr(builtins, dotted, None), type)
    return is_silent(dotted) or dotted.partition(".")[0] in ("typing", "typing_extensions")
