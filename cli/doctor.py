"""`qianmian doctor`: checks the machine, the libraries and the workspace; each finding suggests a fix."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from shlex import quote
from typing import Annotated

import typer

from cli.console import Output
from cli.options import JsonOption, WorkspaceOption
from cli.times import MISSING_TIMEZONE, TIMEZONE_EXAMPLE, as_of_or_default, utc_now
from qianmian.errors import ConfigError, NotReady, QianmianError, UsageError
from qianmian.private_files import OTHERS, is_open, make_private_folder
from qianmian.times import days_between, is_stale
from qianmian.workspace import Workspace, atomic_path

OK, WARN, FAIL = "ok", "warn", "fail"
MARKS = {OK: "[green]ok[/]  ", WARN: "[yellow]warn[/]", FAIL: "[red]fail[/]"}
# distribution → minimum version; all of them are required
LIBRARIES = {
    "bentoml": "1.4",
    "duckdb": "1.3",
    "ibis-framework": "11",
    "implicit": "0.7.3",
    "mlflow": "3.1",
    "numpy": "2",
    "pandas": "2.2",
    "pyarrow": "17",
    "rectools-lightfm": "1.17.3",
    "scikit-learn": "1.5",
    "scipy": "1.13",
    "xgboost-cpu": "3",
}
ALTERNATIVE_PACKAGES = {"xgboost-cpu": "xgboost"}  # the wheel with CUDA provides the same package
LOW_DISK_GIB, MIN_DISK_GIB = 5.0, 0.5
FAIL_EXIT = 2


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Attributes
    ----------
    check : str
        Name of the check.
    status : {"ok", "warn", "fail"}
        Outcome.
    found : str
        What the check found.
    hint : str
        Suggested fix.
    """

    check: str
    status: str
    found: str
    hint: str = ""


def doctor(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port that `serve` will use.")] = 3000,
    init_settings: Annotated[
        bool,
        typer.Option(
            "--init-settings",
            help="Write qianmian.yaml with the default and a comment for every setting into the workspace, and stop.",
        ),
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the machine, the libraries and the workspace; the exit code is 2 if a check fails."""
    output, located = Output(as_json), Workspace.locate(workspace)
    if init_settings:
        write_settings(output, located)
        return
    results: list[CheckResult] = []
    with output.working():
        for check in CHECKS:
            results += check(located, port)
    failed = any(result.status == FAIL for result in results)
    output.result(
        {"workspace": located.root, "healthy": not failed, "findings": [asdict(result) for result in results]}
    )
    for result in results:
        output.say(_line(result), markup=True)
    if failed:
        raise typer.Exit(FAIL_EXIT)


def _line(result: CheckResult) -> str:
    from rich.markup import escape

    fix = f"\n       fix: {escape(result.hint)}" if result.hint and result.status != OK else ""
    return f"{MARKS[result.status]} {escape(result.check)}: {escape(result.found)}{fix}"


def write_settings(output: Output, located: Workspace) -> None:
    """Copy the commented default settings into the workspace; never overwrite a settings file.

    Raises
    ------
    UsageError
        The settings file exists.
    """
    target = located.config_file
    if target.exists():
        raise UsageError(
            "the settings file exists already",
            where=str(target),
            hint="edit the file, or remove it to start from the defaults",
        )
    make_private_folder(located.root)
    text = importlib.resources.files("qianmian").joinpath("defaults.yaml").read_text(encoding="utf-8")
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    output.result({"settings": target})
    output.say(f"written: {target}; delete the settings that you do not change. `qianmian doctor` checks the file")


def message_of(error: QianmianError) -> str:
    """Message of an error with its details, without the hint, which is printed on its own line."""
    return str(error.as_dict()["message"])


# ---- the checks ------------------------------------------------------------------------------------------------------


def _python(located: Workspace, port: int) -> Iterator[CheckResult]:
    yield CheckResult(
        "Python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )


def _compiler(located: Workspace, port: int) -> Iterator[CheckResult]:
    found = next((path for path in map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")) if path), None)
    if found:
        yield CheckResult("C compiler", OK, found)
    else:
        hint = "apt-get install build-essential, or xcode-select --install; only needed to install Qianmian"
        yield CheckResult("C compiler", WARN, "not found", hint)


def _libraries(located: Workspace, port: int) -> Iterator[CheckResult]:
    found, wrong = [], []
    for name, minimum in LIBRARIES.items():
        version = next(
            (version for version in map(_version_of, (name, ALTERNATIVE_PACKAGES.get(name, name))) if version), None
        )
        if version is None or _version_tuple(version) < _version_tuple(minimum):
            wrong.append(f"{name} {version or 'missing'} (needs {minimum} or newer)")
        else:
            found.append(f"{name} {version}")
    if wrong:
        hint = "run `make install`, or `pip install --require-hashes -r requirements.lock`"
        yield CheckResult("libraries", FAIL, ", ".join(wrong), hint)
    else:
        yield CheckResult("libraries", OK, ", ".join(found))


def _version_of(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _settings(located: Workspace, port: int) -> Iterator[CheckResult]:
    from qianmian.config import load_settings

    try:
        settings = load_settings(located.config_file)
        pack, zone = settings.pack, settings.timezone
    except QianmianError as error:
        yield CheckResult("settings", FAIL, error.message.strip(), error.hint or "")
        return
    where = (
        str(located.config_file)
        if located.config_file.exists()
        else "the defaults (--init-settings writes them to a file)"
    )
    yield CheckResult("settings", OK, where + (f"; industry pack {pack}" if pack else ""))
    if zone is None:
        yield CheckResult("time zone", WARN, MISSING_TIMEZONE, f"add a line such as {TIMEZONE_EXAMPLE}")
    else:
        yield CheckResult("time zone", OK, zone)


def _disk(located: Workspace, port: int) -> Iterator[CheckResult]:
    folder = next(folder for folder in (located.root, *located.root.parents) if folder.exists())
    free = shutil.disk_usage(folder).free / 2**30
    hint = "free some space, or choose a --workspace on another disk"
    yield CheckResult(
        "disk",
        OK if free >= LOW_DISK_GIB else WARN if free >= MIN_DISK_GIB else FAIL,
        f"{free:.1f} GiB free at {folder}",
        hint,
    )
    if not os.access(folder, os.W_OK):
        hint = "give this user write permission, or choose another --workspace"
        yield CheckResult("disk", FAIL, f"{folder} is not writable", hint)


def _workspace(located: Workspace, port: int) -> Iterator[CheckResult]:
    try:
        located.require()
    except QianmianError as error:
        yield CheckResult("workspace", FAIL, f"{located.root}: {error.message}", error.hint or "")
        return
    yield CheckResult("workspace", OK, str(located.root))
    for name, check in (
        ("permissions", _permissions),
        ("lake", _lake),
        ("profiles", _profiles),
        ("champions", _champions),
        ("erasures", _erasures),
        ("API keys", _api_keys),
    ):
        try:
            yield from check(located)
        except QianmianError as error:
            yield CheckResult(name, FAIL, message_of(error), error.hint or "")


def _permissions(located: Workspace) -> Iterator[CheckResult]:
    opened = [path for path in (located.secrets, *sorted(located.secrets.rglob("*"))) if is_open(path)]
    if opened:
        shown = ", ".join(str(path.relative_to(located.root)) for path in opened[:5])
        yield CheckResult(
            "secrets", WARN, f"other users can read {shown}", f"chmod -R go= {quote(str(located.secrets))}"
        )
    if is_open(located.root, OTHERS):
        yield CheckResult(
            "permissions",
            WARN,
            "every user of this machine can enter the workspace, which has personal data",
            f"chmod 700 {quote(str(located.root))} (750: the group of the folder may enter it)",
        )
    elif not opened:
        yield CheckResult("permissions", OK, "no other user of this machine can enter the workspace")


def _lake(located: Workspace) -> Iterator[CheckResult]:
    from features.data.lake import Lake

    lake = Lake(located)
    try:
        states = lake.states()
        lake.connect()  # opens the header of every file in the manifest
    except QianmianError as error:
        yield CheckResult("lake", FAIL, message_of(error), error.hint or "")
        return
    if not states:
        yield CheckResult("lake", FAIL, "empty", "run `qianmian ingest`")
        return
    rows = ", ".join(f"{name} {state.rows:,}" for name, state in states.items())
    yield CheckResult("lake", OK, f"{rows}; last row {lake.last or 'undated'}; digest {lake.digest}")
    rejected = sum(1 for _ in located.quarantine.rglob("*.parquet")) if located.quarantine.is_dir() else 0
    if rejected:
        yield CheckResult(
            "quarantine",
            WARN,
            f"{rejected} file(s) with rejected rows",
            f"read the reasons in the column `reason` of {located.quarantine}/*/*.parquet",
        )


def _profiles(located: Workspace) -> Iterator[CheckResult]:
    from features.data.lake import Lake
    from features.profiles.snapshot import load_current
    from qianmian.config import load_settings

    try:
        snapshot = load_current(located)
        settings = load_settings(located.config_file)
        stale_after = settings.serving.stale_after_days
    except QianmianError as error:
        status = FAIL if error.code == "artifact" else WARN
        yield CheckResult("profiles", status, message_of(error), error.hint or "")
        return
    text = f"{snapshot.table.num_rows:,} customers as of {snapshot.as_of}"
    if snapshot.data_digest != Lake(located).digest:
        yield CheckResult(
            "profiles", WARN, f"{text}; the lake has changed since they were built", "run `qianmian features`"
        )
        return
    if snapshot.spec.timezone != settings.calendar_timezone:
        zones = f"days and hours are those of {snapshot.spec.timezone}, not of {settings.calendar_timezone}"
        yield CheckResult("profiles", WARN, f"{text}; {zones}", "run `qianmian features`, then `qianmian train all`")
        return
    now = utc_now()
    if is_stale(snapshot.as_of, now, stale_after):
        newer = Lake(located).has_timestamps and as_of_or_default(Lake(located), None) > snapshot.as_of
        fix = "run `qianmian features`" if newer else "ingest newer data, then run `qianmian features`"
        age = f"{days_between(snapshot.as_of, now):,.0f} days ago"
        yield CheckResult("profiles", WARN, f"{text}, {age}; responses are marked as stale", fix)
    else:
        yield CheckResult("profiles", OK, text)


def _champions(located: Workspace) -> Iterator[CheckResult]:
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace
    from serving.recommending.planned import PromotionsError

    try:
        champions = load_from_workspace(located, load_settings(located.config_file))
    except NotReady as error:
        yield CheckResult("champions", WARN, error.message, error.hint or "")
        return
    except ConfigError:
        yield CheckResult("champions", WARN, "not checked, because the settings are invalid", "correct the settings")
        return
    for problem in champions.problems:
        if isinstance(problem, PromotionsError):
            yield CheckResult("promotions", WARN, message_of(problem), problem.hint or "")
            continue
        yield CheckResult(
            "champion",
            WARN,
            f"{message_of(problem)}; the previous version is served instead",
            "train it again, or promote another version with `qianmian models promote`",
        )
    broken = {job: error for job, error in champions.failures.items() if job != "profiles"}
    for job, reason in broken.items():
        yield CheckResult(
            f"champion {job}",
            FAIL,
            message_of(reason),
            f"run `qianmian models rollback {job}` or `qianmian train {job}`",
        )
    loaded = ", ".join(f"{job} v{champion.version}" for job, champion in champions.models.items())
    if loaded:
        yield CheckResult("champions", OK, f"{loaded}; checksums match")
    elif not broken:
        yield CheckResult("champions", WARN, "none yet", "run `qianmian train all`")


def _erasures(located: Workspace) -> Iterator[CheckResult]:
    from features.data.pii_key import load_key
    from features.erasure.tombstones import read_tombstones
    from training.erasure import pending_erasures

    if pending := len(pending_erasures(located)):
        found = f"{pending} not complete; the files under erasures/pending/ still name the customers"
        yield CheckResult("erasures", WARN, found, "run `qianmian erase --resume`")
    if tombstones := len(read_tombstones(located)):
        load_key(located)  # without the key they recognise nobody, and an ingest would bring everybody back
        yield CheckResult("erasures", OK, f"{tombstones:,} user ids are erased and refused")


def _api_keys(located: Workspace) -> Iterator[CheckResult]:
    from serving.security.key_file import KeyFile
    from serving.security.keys import count_active

    key_file = KeyFile.locate(located)
    if key_file is None or (keys := key_file.read()) is None:
        yield CheckResult("API keys", OK, "none: a server answers only programs on its own machine")
    else:
        active = count_active(keys, utc_now())
        found = f"{active} active of {len(keys)}"
        yield CheckResult("API keys", OK if active else WARN, found, "run `qianmian keys create`")


def _port(located: Workspace, port: int) -> Iterator[CheckResult]:
    from serving.server import check_port

    try:
        check_port("127.0.0.1", port)
    except UsageError as error:
        yield CheckResult("port", WARN, error.message, error.hint or "")
        return
    yield CheckResult("port", OK, f"{port} is free on 127.0.0.1")


CHECKS: tuple[Callable[[Workspace, int], Iterator[CheckResult]], ...] = (
    _python,
    _compiler,
    _libraries,
    _settings,
    _disk,
    _workspace,
    _port,
)
