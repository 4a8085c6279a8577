"""The storages of shared studies: a journal file, PostgreSQL, Optuna's gRPC proxy; what to say where one is gone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import NasError
from nas.search.optuna_study import quiet

if TYPE_CHECKING:
    import optuna

_CONNECT_S = 10
_STARTS = 6


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """The storage that a URL names; several workers may be the first to open a database at once."""
    import sqlalchemy.exc

    kind, _, place = url.partition("://")
    opens = {"journal": _journal, "grpc": _grpc, "postgresql": _postgresql}.get(kind.split("+")[0])
    if opens is None or not place:
        raise NasError(
            f"storage must be journal://PATH, grpc://HOST:PORT or postgresql://USER@HOST/DATABASE; got {_shown(url)}"
        )
    with quiet():
        for start in range(_STARTS):
            try:
                return opens(url, place)
            except ImportError as error:
                raise NasError(f"{_shown(url)}: its driver is missing; pip install 'hwnas[workers]'") from error
            except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError) as error:
                if start == _STARTS - 1:
                    raise _unreachable(url, error) from error
                time.sleep(0.2 * (start + 1))
            except (sqlalchemy.exc.SQLAlchemyError, OSError, ValueError) as error:
                raise _unreachable(url, error) from error
    raise AssertionError


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Say that the storage is gone, instead of how its driver puts it."""
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise _unreachable(url, error.__cause__ or error) from error
    except Exception as error:
        if isinstance(error, NasError) or not type(error).__module__.startswith("grpc"):
            raise
        raise _unreachable(url, error) from error


def _journal(url: str, path: str) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if not Path(path).resolve().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {Path(path).resolve().parent}")
    return JournalStorage(JournalFileBackend(path))


def _grpc(url: str, place: str) -> optuna.storages.BaseStorage:
    import optuna

    host, _, port = place.rpartition(":")
    storage = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    storage.wait_server_ready(timeout=_CONNECT_S)
    return storage


def _postgresql(url: str, place: str) -> optuna.storages.BaseStorage:
    import optuna

    if url.startswith("postgresql://"):  # which driver that means depends on the version of SQLAlchemy
        url = f"postgresql+psycopg2://{place}"
    connect = {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_S}}
    return optuna.storages.RDBStorage(url, engine_kwargs=connect)


def _unreachable(url: str, error: BaseException) -> NasError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return NasError(f"{_shown(url)}: storage cannot be reached ({reason}); mend it, then start the worker again")


def _shown(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"(://[^:@/]*):[^@/]*@", r"\1:***@", url)
