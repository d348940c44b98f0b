"""Which artifacts of a config are there, whole, and made from what the config and the code ask for.

A key is the digest of what an artifact is made from (``Plan.made_from``): the rule, its settings, the fingerprint of
its code, the digests of the files from outside by their role, and the keys of the artifacts that it reads. Paths are no
part of it, nor are times: a project that is copied or moved is up to date. Final outputs of another key are made again;
what they are made from, such as checkpoints, only if something needs it.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from learning_geometry.fingerprint import PACKAGE, code_fingerprint
from learning_geometry.known import Known, digest_of
from learning_geometry.model_files import PLACES
from learning_geometry.paths import KNOWN, recorded
from learning_geometry.planning.artifacts import made_from_record
from learning_geometry.planning.jobs import PASSING, Job, all_jobs, run_settings
from learning_geometry.planning.outside import outside_files
from learning_geometry.sources.saelens import ENTRIES, FOLDER, saelens_folders
from learning_geometry.tasks.texts import EMBEDDED


class Plan:
    """The jobs of a config, their keys, and what of them is on disk."""

    def __init__(self, config: Mapping[str, Any], scripts: str | Path, redraw: bool = False, package: Path = PACKAGE):
        """Make the plan; nothing is read yet.

        Args:
            config: with all defaults, as ``config.validate`` returns it.
            scripts: folder of the rules' scripts.
            redraw: plan to draw the tables of an archive again.
            package: whose code is compared.
        """
        self.results, self._scripts, self._package = Path(config["results"]), Path(scripts), package
        self.jobs = all_jobs(config, redraw)
        self.known = Known(self.results / KNOWN)
        self._of_output = {output: job for job in self.jobs for output in job.outputs}
        self._of_rule = {(job.rule, tuple(sorted(job.wildcards.items()))): job for job in self.jobs}
        self._made_from: dict[Job, dict[str, Any]] = {}
        self._keys: dict[Job, str] = {}
        self._settings: dict[int, tuple[Any, str]] = {}
        self._fingerprints: dict[tuple[str, ...], str] = {}
        self._outside: dict[str, dict[str, str]] = {}
        self._outside_files: dict[str, dict[str, Path]] = {}
        self._wrong: dict[str, str] = {}

    def find(self, rule: str, wildcards: Mapping[str, str] | None = None) -> Job:
        """Return a job by its rule and wildcards.

        Raises:
            KeyError: the config asks for no such job.
        """
        name = (rule, tuple(sorted((key, str(value)) for key, value in (wildcards or {}).items())))
        if name not in self._of_rule:
            raise KeyError(f"the config asks for no {' '.join([rule, *(value for _, value in name[1])])}")
        return self._of_rule[name]

    def made_by(self, path: str) -> Job | None:
        """Return the job that makes a file or folder, or None."""
        return self._of_output.get(path)

    def roots(self, job: Job) -> tuple[str, ...]:
        """Return the script and the modules of which the code of a job is the closure."""
        return (str(self._scripts / job.script), *(f"{self._package.name}.{module}" for module in job.modules))

    def code(self, job: Job) -> str:
        """Return the fingerprint of the code of a job.

        Raises:
            ValueError: a module is not valid Python, or does not exist.
        """
        roots = self.roots(job)
        if roots not in self._fingerprints:
            self._fingerprints[roots] = code_fingerprint(*roots, package=self._package, known=self.known)
        return self._fingerprints[roots]

    def outside(self, job: Job) -> dict[str, str]:
        """Return the digests of the files from outside that a job reads, by role.

        Raises:
            FileNotFoundError: one is missing.
        """
        if not job.reads:
            return {}
        name = digest_of(job.reads)
        if name not in self._outside:
            self._outside[name] = {role: self.known.digest(path) for role, path in self._files(job).items()}
        return self._outside[name]

    def _files(self, job: Job) -> dict[str, Path]:
        """Return the files from outside that a job reads, by role, looked for once."""
        name = digest_of(job.reads)
        if name not in self._outside_files:
            self._outside_files[name] = {role: path.resolve() for role, path in outside_files(job.reads).items()}
        return self._outside_files[name]

    def made_from(self, job: Job) -> dict[str, Any]:
        """Return what a job's outputs are made from, as digests: what is stored beside the key.

        Raises:
            FileNotFoundError: a file from outside is missing, or a table that no job makes.
            ValueError: the code cannot be read.
        """
        if job not in self._made_from:
            self._made_from[job] = {
                # what weights are called tells where their file lies, which is no part of the key
                "job": job.rule if job.rule == "dequantise" else job.title,
                "settings": {name: self._digest(value) for name, value in _numbers(job).items()},
                "code": self.code(job),
                "outside": self.outside(job),
                "inputs": {
                    role: digest_of([self.input_key(path) for path in paths]) for role, paths in job.inputs.items()
                },
            }
        return self._made_from[job]

    def _digest(self, setting: Any) -> str:
        """Return the digest of a setting; the seeds of an experiment share theirs, of which one is digested once."""
        if not isinstance(setting, dict):
            return digest_of(setting)
        if id(setting) not in self._settings:
            # held on to, or another might come to bear its id
            self._settings[id(setting)] = setting, digest_of(setting)
        return self._settings[id(setting)][1]

    def key(self, job: Job) -> str:
        """Return the key that a job's outputs must bear, 16 hexadecimal digits.

        Raises:
            FileNotFoundError, ValueError: as :meth:`made_from`.
        """
        if job not in self._keys:
            self._keys[job] = digest_of(self.made_from(job))
        return self._keys[job]

    def input_key(self, path: str) -> str:
        """Return the key of what a job reads; of what no job makes, such as a table of an archive, its digest."""
        job = self.made_by(path)
        return self.key(job) if job is not None else self.known.digest(path)

    def wrong(self, job: Job, path: str) -> str:
        """Return why an output of a job must be made before it is used, or "" if it is there, whole and up to date."""
        if path not in self._wrong:
            made = made_from_record(path, job, self.results, self.known)
            if made.problem:
                self._wrong[path] = made.problem
            else:
                self._wrong[path] = "" if made.key == self.key(job) else self._difference(job, made.made_from)
        return self._wrong[path]

    @cached_property
    def to_make(self) -> dict[Job, str]:
        """The jobs whose final outputs are not up to date, and those that these need, each with the reason."""
        outdated: dict[Job, str] = {}
        waiting = []
        for job in self.jobs:
            reasons = [
                f"{path}: {why}" for path in job.outputs if not passing(job, path) and (why := self.wrong(job, path))
            ]
            # nobody asks for an archive but by its name
            if reasons and (job.rule != "archive" or Path(job.outputs[0]).exists()):
                outdated[job] = reasons[0]
                waiting.append(job)
        while waiting:
            for path in (path for paths in waiting.pop().inputs.values() for path in paths):
                made = self.made_by(path)
                if made is not None and made not in outdated and (why := self.wrong(made, path)):
                    outdated[made] = f"{path}: {why}"
                    waiting.append(made)
        # what concludes from a table that is made again is made again with it; jobs stand behind those that they read
        for job in self.jobs:
            if job in outdated or not concludes(job) or not all(Path(path).exists() for path in job.outputs):
                continue
            read = [path for path in _flat(job.inputs.values()) if self._of_output.get(path) in outdated]
            if read:
                outdated[job] = f"{job.outputs[0]}: {read[0]} is made again"
        return outdated

    def must_run(self, job: Job, asked: Collection[str] = ()) -> str:
        """Return why a job must run, or "" if it need not.

        Args:
            job: of this plan.
            asked: paths that are asked for by name.
        """
        if job in self.to_make:
            return self.to_make[job]
        named = [path for path in job.outputs if path in asked or f"{path}/" in asked]
        return next((f"{path}: {why}" for path in named if (why := self.wrong(job, path))), "")

    def derivation(self, job: Job) -> dict[str, Any]:
        """Return what a job is given to check itself and to store in its outputs; see ``running.job``."""
        return {
            "key": self.key(job),
            "made_from": self.made_from(job),
            "roots": list(self.roots(job)),
            "outside": {role: str(path) for role, path in self._files(job).items()},
            # those that hold their key themselves
            "inputs": {
                path: self.key(made)
                for path in _flat(job.inputs.values())
                if (made := self.made_by(path)) is not None and path not in recorded(made.outputs)
            },
            "outputs": list(job.outputs),
            "results": str(self.results),
            "works_in": job.works_in,
        }

    def _difference(self, job: Job, before: Mapping[str, Any]) -> str:
        """Say in what an artifact differs from what is asked for."""
        if not before.get("job"):
            return "made by a version that did not store what it was made from"
        now, changed = self.made_from(job), []
        if before.get("job") != now["job"]:
            return f"made by another job, {before.get('job')}"
        for part, words in (("settings", "setting"), ("outside", "file"), ("inputs", "input")):
            old, new = before.get(part, {}), now[part]
            names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            if names:
                changed.append(f"{words}{'s' * (len(names) > 1)} {', '.join(names)}")
        if before.get("code") != now["code"]:
            changed.append("code")
        return f"changed: {', '.join(changed)}"


def concludes(job: Job) -> bool:
    """Whether a job does no more than gather, draw or judge tables, in seconds."""
    gather = ("summarize", "write_summary", "gather_sweep", "gather_series", "judge_claims", "archive")
    return job.rule in gather or job.rule.startswith("figure_")


def passing(job: Job, path: str) -> bool:
    """Whether an output serves other jobs alone; checkpoints come with a table of metrics, which does not."""
    return job.passing or path.endswith(PASSING)


def _flat(groups: Iterable[Iterable[str]]) -> list[str]:
    return [path for group in groups for path in group]


def _without_file(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of a task without the place of a file, for which its digest stands; a corpus has no place."""
    # the same object where nothing is left out: its digest is known
    if task.get("file", EMBEDDED[0]) in EMBEDDED:
        return task
    return {key: value for key, value in task.items() if key != "file"}


def _without_folders(measurement: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of a measurement without the folders of dictionaries, for which the files' digests stand."""
    folders = saelens_folders(measurement)
    if not folders:
        return measurement
    entries = {name: {**each, **dict.fromkeys(each.keys() & {FOLDER})} for name, each in measurement[ENTRIES].items()}
    return {**measurement, ENTRIES: entries}


def _numbers(job: Job) -> dict[str, Any]:
    """Return the settings that a result depends on, by name; where outside files and figures lie is left out."""
    settings: dict[str, Any] = {}
    for name, value in job.settings.items():
        # of a run's sections each is named when it changes
        if name in ("run", "experiment", "settings") and isinstance(value, Mapping):
            settings |= {f"{name}.{section}": entry for section, entry in value.items()}
        else:
            settings[name] = value
    for name in ("task", "run.task", "experiment.task"):
        if isinstance(settings.get(name), Mapping):
            settings[name] = _without_file(settings[name])
    if any("file" in task for task in settings.get("options", {}).get("tasks", {}).values()):
        tasks = {name: _without_file(task) for name, task in settings["options"]["tasks"].items()}
        settings["options"] = settings["options"] | {"tasks": tasks}
    if job.rule == "judge_claims":
        settings["figures"] = {name: each["experiments"] for name, each in settings["figures"].items()}
        # of what is read no claim asks where it lies
        settings["experiments"] = {
            name: each
            | {"texts": list(each.get("texts", {}))}
            | {"model": {key: value for key, value in each.get("model", {}).items() if key not in (*PLACES, "device")}}
            | ({"task": _without_file(each["task"])} if "task" in each else {})
            | (
                {"measurements": {key: _without_folders(asked) for key, asked in each["measurements"].items()}}
                if "measurements" in each
                else {}
            )
            | ({"source": run_settings(each)["source"]} if "source" in each else {})
            for name, each in settings["experiments"].items()
        }
    if job.rule == "import_checkpoints":
        # digests of all files stand for them, by step; of the other seeds it depends for the check alone
        settings = {name: value for name, value in settings.items() if name not in ("source", "seeds")}
    if job.rule in ("dequantise", "capture_text", "capture_prompts", "measure_language_model"):
        settings.pop("source", None)
        for name in ("model", "settings.model"):
            if name in settings:
                # on another one the same is computed, but for rounding; every table says on which
                settings[name] = {key: value for key, value in settings[name].items() if key != "device"}
            if name in settings and not (settings[name]["download"] and not Path(settings[name]["source"]).exists()):
                settings[name] = {key: value for key, value in settings[name].items() if key not in PLACES}
        for name in ("settings.texts", "settings.prompts"):
            if name in settings:
                settings[name] = list(settings[name])
        if "measurement" in settings:
            settings["measurement"] = _without_folders(settings["measurement"])
    return settings
