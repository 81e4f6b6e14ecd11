"""Experiment trackers: they get what metrics.jsonl gets, a resumed run goes on in the same one, and a failure changes nothing.

Most tests have a small module in place of wandb, which records each call; the last two have the packages themselves, without a
server: wandb offline, and MLflow's store in a folder.
"""

import json
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from adsq_jax.errors import InputError, Stopped
from adsq_jax.run import experiment_trackers
from adsq_jax.run.metrics_log import CallbackLog

CONFIG = {"bits": 24, "train": {"rounds": 3}}
RESULT = {"map": 0.5, "map_by_query_net": {"ff": 0.4}, "config": {"bits": 24}, "seconds": 9}


class FakeWandb:
    """Stands in for the module wandb: records calls, and raises what it is told to."""

    def __init__(self):
        self.inits, self.logged, self.summary, self.exit_codes, self.fail = [], [], {}, [], None
        self.Settings = lambda **options: options

    def init(self, **options):
        self.inits.append(options)
        if self.fail is not None:
            raise self.fail
        names = {"id": options.get("id", "r1"), "project": options["project"], "entity": "me", "url": "https://x/r1"}
        return SimpleNamespace(
            **names, offline=False, define_metric=lambda *_, **__: None, log=self.log, summary=self.summary, finish=self.finish
        )

    def log(self, values):
        if self.fail is not None:
            raise self.fail
        self.logged.append(values)

    def finish(self, *, exit_code):
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch):
    """The stand-in for the module wandb."""
    for name in ("WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def record_some(trackers):
    """Record three lines in a log that the trackers follow; return the lines."""
    lines = []
    log = trackers.following(CallbackLog(lines.append))
    log.record("label_net", 300, {"loss": 0.25}, labels={})
    log.record("img_net", 20, {"loss": 0.5, "balance": 1.0}, labels={"net": "f"})
    log.record("validation", 20, {"map": 0.75}, labels={})
    log.close()
    return lines


def test_wandb_gets_each_record(wandb, tmp_path, capsys):
    """Names are TensorBoard's, LabelNet's steps are its own, the result is the summary; the terminal shows the address."""
    with experiment_trackers.start(["wandb", "wandb"], tmp_path / "", CONFIG) as trackers:
        lines = record_some(trackers)
        trackers.set_result(RESULT)
    assert [line["phase"] for line in lines] == ["label_net", "img_net", "validation"]
    assert wandb.logged == [
        {"label_net/loss": 0.25, "label_net/step": 300},
        {"img_net/f/loss": 0.5, "img_net/f/balance": 1.0, "step": 20},
        {"validation/map": 0.75, "step": 20},
    ]
    assert wandb.summary == {"result/map": 0.5, "result/map_by_query_net/ff": 0.4, "result/seconds": 9}
    [options] = wandb.inits
    assert (options["project"], options["config"], options["dir"]) == ("adsq_jax", CONFIG, str(tmp_path))
    assert wandb.exit_codes == [0]
    assert capsys.readouterr().err == "wandb: https://x/r1\n"


def test_a_later_call_goes_on_in_the_same_run(wandb, tmp_path, monkeypatch):
    """Its name is in the folder, with project and owner, whatever the environment says by then."""
    with experiment_trackers.start(["wandb"], tmp_path, CONFIG):
        pass
    monkeypatch.setenv("WANDB_PROJECT", "another")
    with experiment_trackers.start(["wandb"], tmp_path, CONFIG):
        pass
    assert [options.get("id") for options in wandb.inits] == [None, "r1"]
    assert {key: wandb.inits[1][key] for key in ("project", "entity", "resume")} == {
        "project": "adsq_jax",
        "entity": "me",
        "resume": "allow",
    }


@pytest.mark.parametrize(("error", "code"), [(None, 0), (Stopped(15), 1), (ValueError("x"), 1), (KeyboardInterrupt(), 1)])
def test_a_run_that_did_not_finish_says_so(wandb, tmp_path, error, code):
    """The exit status tells wandb whether the run finished."""
    with pytest.raises(type(error)) if error else experiment_trackers.Trackers():  # noqa: SIM117
        with experiment_trackers.start(["wandb"], tmp_path, CONFIG):
            if error:
                raise error
    assert wandb.exit_codes == [code]


def test_a_failure_while_training_is_one_warning(wandb, tmp_path, capsys):
    """Whatever a tracker raises, the log has its lines, the warning comes once, and the tracker is finished."""
    with experiment_trackers.start(["wandb"], tmp_path, CONFIG) as trackers:
        wandb.fail = RuntimeError("first\nthe server is down\x1b[2J")
        assert len(record_some(trackers)) == 3
    errors = capsys.readouterr().err.splitlines()
    assert errors[1:] == ["warning: --log=wandb: the server is down\\x1b[2J; the run goes on, and metrics.jsonl has everything"]
    assert (wandb.logged, wandb.exit_codes) == ([], [0])


def test_a_slow_tracker_holds_nothing_up(wandb, tmp_path, capsys, monkeypatch):
    """Records that it doesn't take in time are dropped, and at the end it is left behind; both cost one warning."""
    monkeypatch.setattr(experiment_trackers, "_LONGEST_QUEUE", 2)
    monkeypatch.setattr(experiment_trackers, "_FINISH_SECONDS", 0.2)
    release = threading.Event()
    wandb.log = lambda values: release.wait(20)
    began = time.monotonic()
    with experiment_trackers.start(["wandb"], tmp_path, CONFIG) as trackers:
        for _ in range(3):
            record_some(trackers)
    assert time.monotonic() - began < 5
    release.set()
    assert capsys.readouterr().err.count("warning: --log=wandb: it is too slow, and misses records; the run goes on") == 1


def test_a_new_run_that_cannot_start_is_an_error_and_a_resumed_one_a_warning(wandb, tmp_path, capsys):
    """Before anything is computed the user can mend it; a run that goes on by itself, as after a preemption, does so."""
    wandb.fail = RuntimeError("No API key configured. Use `wandb login` to log in.")
    with pytest.raises(InputError, match=r"--log=wandb can't start .No API key configured.* fix: .*leave out --log=wandb"):
        experiment_trackers.start(["wandb"], tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "trackers.json").write_text('{"wandb": {"id": "r1", "project": "p"}}')
    with experiment_trackers.start(["wandb"], tmp_path, CONFIG) as trackers:
        assert len(record_some(trackers)) == 3
    assert "warning: --log=wandb can't go on (No API key configured" in capsys.readouterr().err
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": {"id": "r1", "project": "p"}}


def test_one_that_cannot_start_ends_the_other(wandb, tmp_path, monkeypatch):
    """Nothing is left open."""
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())
    with pytest.raises(InputError, match="--log=mlflow can't start"):
        experiment_trackers.start(["wandb", "mlflow"], tmp_path, CONFIG)
    assert wandb.exit_codes == [1]


@pytest.mark.parametrize(
    "content", ["[]", '{"wandb": 1}', '{"wandb": {}}', '{"wandb": {"id": 1}}', '{"wandb": {"id": "r", "mode": "online"}}', "x"]
)
def test_a_damaged_file_of_names(wandb, tmp_path, content):
    """It is refused: what it says would reach the tracker's own functions."""
    (tmp_path / "trackers.json").write_text(content)
    with pytest.raises(InputError, match=r"trackers.json .*; fix: "):
        experiment_trackers.start(["wandb"], tmp_path, CONFIG)
    assert wandb.inits == []


def test_unknown_and_missing(tmp_path, monkeypatch):
    """Both are one line; a folder wandb/, which wandb itself makes, is not the package."""
    with pytest.raises(InputError, match=r"--log=wandbb: expected wandb or mlflow \(did you mean 'wandb'\?\)"):
        experiment_trackers.check(["wandbb"])
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InputError, match=r"--log=wandb needs wandb, which isn't .* pip install 'adsq_jax\[wandb\]'"):
        experiment_trackers.check(["wandb"])


def test_no_trackers(tmp_path):
    """Without any the log is the same one, and nothing is written."""
    log = CallbackLog(print)
    with experiment_trackers.start([], tmp_path, CONFIG) as trackers:
        assert trackers.following(log) is log
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")  # of the package
def test_wandb_itself(tmp_path, monkeypatch):
    """The package offline: both calls write what `wandb sync` sends, into the run's folder, of the same run."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    for _ in range(2):
        with experiment_trackers.start(["wandb"], tmp_path, CONFIG) as trackers:
            record_some(trackers)
            trackers.set_result(RESULT)
        time.sleep(1.1)  # wandb names its folders by the second
    [name] = json.loads((tmp_path / "trackers.json").read_text()).values()
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name['id']}/run-{name['id']}.wandb"))
    assert len(files) == 2
    for path in files:
        content = path.read_bytes()
        assert all(text in content for text in (b"img_net/f/loss", b"label_net/step", b"result/map_by_query_net/ff", b"rounds"))


@pytest.mark.filterwarnings("ignore")  # of the package
def test_a_wandb_run_of_the_user_stays_open(tmp_path, monkeypatch):
    """With one open, ours is another one, new and resumed; finishing ours leaves the user's as it was."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    folder = tmp_path / "run"
    folder.mkdir()
    settings = wandb.Settings(silent=True, console="off")
    with wandb.init(project="mine", dir=str(tmp_path), mode="offline", settings=settings) as users:
        ids = []
        for _ in range(2):
            with experiment_trackers.start(["wandb"], folder, CONFIG) as trackers:
                record_some(trackers)
            ids.append(json.loads((folder / "trackers.json").read_text())["wandb"]["id"])
            users.log({"of the user": 1.0})  # raises once the run is finished
            assert wandb.run is users
        assert ids[0] == ids[1] != users.id
        assert "bits" not in users.config


@pytest.mark.filterwarnings("ignore")  # of the package
def test_mlflow_itself(tmp_path, monkeypatch):
    """The package on a folder: both calls are one run, with metrics by step, parameters, the result and its state."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    config = {**CONFIG, "many": {f"key{number}": number for number in range(150)}, "long": "x" * 10_000}
    run = tmp_path / "run"
    run.mkdir()
    client = mlflow.MlflowClient()
    states = []
    for error in (Stopped(15), None):
        try:
            with experiment_trackers.start(["mlflow"], run, config) as trackers:
                record_some(trackers)
                if error is not None:
                    raise error
                trackers.set_result(RESULT)
        except Stopped:
            pass
        [experiment] = [found for found in client.search_experiments() if found.name == "adsq_jax"]
        [found] = client.search_runs([experiment.experiment_id])
        states.append(found.info.status)
    assert states == ["KILLED", "FINISHED"]
    assert found.info.run_name == "run"
    assert found.data.params == {"bits": "24", "train.rounds": "3", "long": "x" * 500} | {
        f"many.key{number}": str(number) for number in range(150)
    }
    assert found.data.metrics["img_net/f/balance"] == 1.0
    assert found.data.metrics["result/map_by_query_net/ff"] == 0.4
    assert [m.step for m in client.get_metric_history(found.info.run_id, "label_net/loss")] == [300, 300]
