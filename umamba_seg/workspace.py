"""Where the three nnU-Net folders, the data sets in them and the settings come from.

A value is taken from the first that has it: option, environment variable, `umamba.toml` in the current folder, the
user's file, default. nnU-Net's own variables always win for its three folders.
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from umamba_seg.errors import DataError, MachineError, UsageError, unknown

FOLDER_VARIABLES = {"raw": "nnUNet_raw", "preprocessed": "nnUNet_preprocessed", "results": "nnUNet_results"}
DEFAULT_WORKSPACE = "umamba_workspace"
LOCAL_FILE = "umamba.toml"

VARIABLES = {
    "workspace": "UMAMBA_WORKSPACE",
    "models": "UMAMBA_MODELS",
    "backend": "UMAMBA_BACKEND",
    "device": "UMAMBA_DEVICE",
    "num_threads": "UMAMBA_NUM_THREADS",
}
DEFAULTS = {"workspace": DEFAULT_WORKSPACE, "backend": "auto", "device": "auto", "num_threads": ""}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it was found."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Workspace:
    """nnU-Net's three folders, and who decided on each."""

    raw: Path
    preprocessed: Path
    results: Path
    sources: Mapping[str, str]

    def folders(self) -> dict[str, Path]:
        """The folder of each of nnU-Net's variables."""
        return {variable: getattr(self, name) for name, variable in FOLDER_VARIABLES.items()}

    def is_set_by_variables(self) -> bool:
        """Whether nnU-Net's own variables decide on all three folders."""
        return all(source == FOLDER_VARIABLES[name] for name, source in self.sources.items())

    def make(self) -> None:
        """Make the folders, or say why that is not possible."""
        for variable, folder in self.folders().items():
            make_folder(folder, where=variable)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let nnU-Net's code in this process and its children use these folders inside the block."""
        before = {variable: os.environ.get(variable) for variable in self.folders()}
        os.environ.update({variable: str(folder) for variable, folder in self.folders().items()})
        try:
            yield
        finally:
            for variable, value in before.items():
                if value is None:
                    del os.environ[variable]
                else:
                    os.environ[variable] = value

    @classmethod
    def below(cls, folder: Path, source: str = "option") -> "Workspace":
        """The three folders inside one, under nnU-Net's names."""
        base = folder.expanduser().resolve()
        folders = {name: base / variable for name, variable in FOLDER_VARIABLES.items()}
        return cls(**folders, sources=dict.fromkeys(folders, f"workspace ({source})"))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set by its nnU-Net name, `Dataset004_Hippocampus`, and the folders it has or would have."""

    name: str
    workspace: Workspace

    @property
    def id(self) -> int:
        """Its number."""
        return int(self.name[7:10])

    @property
    def raw(self) -> Path:
        """Images and labels as they came."""
        return self.workspace.raw / self.name

    @property
    def preprocessed(self) -> Path:
        """Plans, fingerprint and preprocessed cases."""
        return self.workspace.preprocessed / self.name

    @property
    def results(self) -> Path:
        """Trained models."""
        return self.workspace.results / self.name

    def description(self) -> dict[str, object]:
        """Its dataset.json, from the raw folder or, where that is gone, the preprocessed one."""
        for folder in (self.raw, self.preprocessed):
            if (folder / "dataset.json").is_file():
                return read_json(folder / "dataset.json")
        raise DataError("the data set has no dataset.json", where=str(self.raw), code="no-dataset-json")


def settings(options: Mapping[str, object] | None = None) -> dict[str, Setting]:
    """Every setting of ours with its source."""
    given = {name: value for name, value in (options or {}).items() if value is not None}
    files = [(path, _read_settings(path)) for path in (Path(LOCAL_FILE), user_file()) if path.is_file()]
    return {name: _setting(name, given, files) for name in VARIABLES}


def _setting(name: str, options: Mapping[str, object], files: list[tuple[Path, dict[str, object]]]) -> Setting:
    if name in options:
        return Setting(name, str(options[name]), "option")
    if value := os.environ.get(VARIABLES[name]):
        return Setting(name, value, VARIABLES[name])
    for path, values in files:
        if name in values:
            return Setting(name, str(values[name]), str(path))
    return Setting(name, _default(name), "default")


def _default(name: str) -> str:
    if name != "models":
        return DEFAULTS[name]
    import platformdirs

    return str(platformdirs.user_data_path("umamba") / "models")


def user_file() -> Path:
    """The user's settings file, whether it exists or not; `UMAMBA_CONFIG` names another."""
    import platformdirs

    return Path(os.environ.get("UMAMBA_CONFIG") or platformdirs.user_config_path("umamba") / LOCAL_FILE)


def _read_settings(path: Path) -> dict[str, object]:
    from pydantic import BaseModel, ConfigDict, ValidationError

    class SettingsFile(BaseModel):
        model_config = ConfigDict(extra="forbid")
        workspace: str | None = None
        models: str | None = None
        backend: Literal["auto", "torch", "numba", "triton"] | None = None
        device: str | None = None
        num_threads: int | None = None

    try:
        return SettingsFile.model_validate(tomllib.loads(path.read_text("utf-8"))).model_dump(exclude_none=True)
    except (tomllib.TOMLDecodeError, ValidationError) as fault:
        reason = (
            f"{fault.errors()[0]['loc'][0]}: {fault.errors()[0]['msg']}"
            if isinstance(fault, ValidationError)
            else str(fault)
        )
        how = [f"settings are {', '.join(VARIABLES)}"]
        raise UsageError(
            f"the settings file cannot be used: {reason}", where=str(path), how=how, code="settings"
        ) from fault


def locate(option: Path | None = None) -> Workspace:
    """The folders to use, without making them. Set variables win over `option`, one by one."""
    setting = settings({"workspace": option})["workspace"]
    place = Workspace.below(Path(setting.value), setting.source)
    for name, variable in FOLDER_VARIABLES.items():
        if value := os.environ.get(variable):
            place = replace(
                place, **{name: Path(value).expanduser().resolve()}, sources={**place.sources, name: variable}
            )
    return place


def export_lines(workspace: Workspace, shell: str) -> list[str]:
    """The lines that make stock nnU-Net commands use these folders, in the language of a shell."""
    forms = {
        "bash": 'export {}="{}"',
        "zsh": 'export {}="{}"',
        "fish": 'set -gx {} "{}"',
        "ps1": '$env:{} = "{}"',
        "conda": "conda env config vars set {}='{}'",
    }
    if shell not in forms:
        raise UsageError(f"--shell must be one of {', '.join(forms)}; got {shell!r}", code="unknown-shell")
    return [forms[shell].format(variable, folder) for variable, folder in workspace.folders().items()]


def find_dataset(text: str, workspace: Workspace) -> Dataset:
    """The data set of an id (`4`), a name (`Dataset004_Hippocampus`, `Hippocampus`) or a folder in the workspace."""
    known = dataset_names(workspace)
    for name in known:
        if text in (name, name[11:]) or (text.isdecimal() and int(text) == int(name[7:10])):
            return Dataset(name, workspace)
    if Path(text).name in known and Path(text).resolve().parent in workspace.folders().values():
        return Dataset(Path(text).name, workspace)
    if (Path(text) / "dataset.json").is_file():
        how = [
            f"move or link the folder to {workspace.raw}{os.sep}DatasetXXX_Name",
            "or set nnUNet_raw to its parent folder",
        ]
        raise UsageError(f"{text} is not in the raw data folder {workspace.raw}", how=how, code="dataset-elsewhere")
    how = [] if known else [f"there is none in {workspace.raw}; put DatasetXXX_Name there"]
    raise unknown("data set", text, known, how=how)


def channel_names(dataset_json: Mapping[str, object]) -> list[str]:
    """Names of the image channels in their order; old files call them modalities."""
    names = dataset_json.get("channel_names", dataset_json.get("modality"))
    return list(names.values()) if isinstance(names, dict) else []


def dataset_names(workspace: Workspace) -> list[str]:
    """Names of all data sets that are there in raw, preprocessed or trained form."""
    found = {path.name for folder in workspace.folders().values() for path in folder.glob("Dataset[0-9][0-9][0-9]_*")}
    return sorted(found)


def make_folder(folder: Path, *, where: str) -> None:
    """Make a folder and prove that it can be written to, or say why not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # permission bits do not tell: root, network drives, read-only mounts
            pass
    except OSError as fault:
        how = ["choose another folder with --workspace DIR, or set " + ", ".join(FOLDER_VARIABLES.values())]
        raise MachineError(
            f"{folder} cannot be written to: {fault.strerror}", where=where, how=how, code="unwritable"
        ) from fault


def read_json(path: Path) -> dict[str, object]:
    """A JSON file whose outermost part is an object, or a sentence that says what is wrong with it."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise DataError(f"the file cannot be read as JSON: {fault}", where=str(path), code="unreadable-json") from fault
    if not isinstance(content, dict):
        raise DataError(
            f"the file must hold a JSON object, not a {type(content).__name__}", where=str(path), code="unreadable-json"
        )
    return content


HOST_VARIABLES = ("nnUNet_extTrainer", "nnUNet_n_proc_DA", "nnUNet_def_n_proc", "nnUNet_compile")


def effective_settings() -> list[Setting]:
    """Our settings, the three folders, and those variables of nnU-Net's that are set."""
    place = locate()
    folders = [
        Setting(variable, str(folder), place.sources[name])
        for (name, variable), folder in zip(FOLDER_VARIABLES.items(), place.folders().values(), strict=True)
    ]
    host = [Setting(name, os.environ[name], name) for name in HOST_VARIABLES if name in os.environ]
    return [*settings().values(), *folders, *host]


def current_shell() -> str:
    """The shell in use, as far as the environment tells; bash where it does not."""
    if os.name == "nt":
        return "ps1"
    name = Path(os.environ.get("SHELL", "bash")).name
    return name if name in ("bash", "zsh", "fish") else "bash"
