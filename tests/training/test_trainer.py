import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import torch

from sempic.errors import ModelError, OutputError
from sempic.networks.weights import load_tensors, save_tensors
from sempic.training import trainer
from sempic.training.checkpoint import Folder
from sempic.training.optimizer import Optimizer, Schedule
from sempic.training.options import RunOptions
from sempic.training.recipe import Recipe
from sempic.training.trainer import train


class Line(Recipe):
    """Fits a linear map, and counts the calls of its methods."""

    kind = "line"
    decay = 0.9

    def __init__(self, options):
        torch.manual_seed(options.seed)
        self.options = options
        self.network, other = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
        self.networks, self.memory = {"other": other}, {"seen": torch.zeros(())}
        mine, others = (
            [{"params": list(network.parameters()), "lr": 0.2}] for network in (self.network, other)
        )
        self.optimizers = {
            "network": Optimizer(mine, schedule=Schedule(2, 0.1), clip=1.0),
            "other": Optimizer(others, schedule=Schedule(), weight_decay=0.1),
        }
        self.rates, self.prepared, self.judged = [], 0, []

    def prepare(self):
        self.prepared += 1

    def step(self, number):
        x = torch.randn(16, 3)  # the trainer seeds each step
        wanted = x @ torch.tensor([1.0, -2.0, 3.0])[:, None]
        losses = {}
        for name, network in (("network", self.network), ("other", self.networks["other"])):
            losses[name] = (network(x) - wanted).square().mean()
            self.optimizers[name].minimise(losses[name])
        self.rates.append(self.optimizers["network"].adam.param_groups[0]["lr"])
        self.memory["seen"].add_(1)
        return losses

    def validate(self, state, sheet):
        self.judged.append(state["weight"].clone())
        PIL.Image.new("RGB", (4, 2)).save(sheet)
        return {"weight": state["weight"].abs().sum().item()}

    def about(self):
        return {"size": 3}


def options(out, **changes):
    return RunOptions(out=out, **{"save_minutes": 0.0, "log_every": 2, **changes})


def trained(out, kind=Line, **changes):
    """The recipe of a run that has ended."""
    recipe = kind(options(out, **changes))
    train(recipe, recipe.options)
    return recipe


def logged_steps(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_learns_logs_and_exports(tmp_path):
    recipe = trained(tmp_path / "run", steps=40, check_every=25, export_dir=tmp_path / "out")
    lines = [json.loads(x) for x in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert lines[0]["step"] == 2
    assert lines[-1]["step"] == 40
    assert lines[-2]["network"] < 0.5 * lines[0]["network"]
    assert len(recipe.judged) == 2  # at 25, and at the end
    assert recipe.prepared == 1
    state, about = load_tensors(tmp_path / "run/line.safetensors", "line")
    assert about == {"size": 3}
    assert (state["weight"] == recipe.judged[-1]).all()
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["line.safetensors", "log.jsonl", "other.safetensors", "sheet-000040.png"]
    half, _ = load_tensors(tmp_path / "out/line.safetensors", "line")
    assert half["weight"].dtype == torch.float16


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in (2, 4):
        trained(tmp_path, steps=steps)
    shown = events.EventAccumulator(str(tmp_path)).Reload()
    assert [entry.step for entry in shown.Scalars("network")] == [2, 4]
    assert [entry.step for entry in shown.Scalars("weight")] == [2, 4]  # of the validation
    assert [entry.step for entry in shown.Images("sheet")] == [2, 4]


def test_a_resumed_run_exports_its_newest_sheet_alone(tmp_path):
    for steps in (2, 4):
        trained(tmp_path / "run", steps=steps, export_dir=tmp_path / "out")
    assert len(list((tmp_path / "run").glob("sheet-*"))) == 2
    assert [p.name for p in (tmp_path / "out").glob("sheet-*")] == ["sheet-000004.png"]


def test_an_interrupted_run_resumes_to_the_same_state(tmp_path):
    trained(tmp_path / "a", steps=9)

    class Dies(Line):
        def step(self, number):
            if number == 5:
                raise KeyboardInterrupt
            return super().step(number)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", Dies, steps=9)
    resumed = trained(tmp_path / "b", steps=9, seed=0)
    assert len(resumed.rates) == 4
    assert resumed.prepared == 0
    assert resumed.memory["seen"] == 9
    for name in ("line", "state"):
        kind = "run" if name == "state" else name
        a, b = (load_tensors(tmp_path / run / f"{name}.safetensors", kind)[0] for run in "ab")
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    steps = logged_steps(tmp_path / "b")
    assert steps == sorted(steps)


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_trainer import Line, trained

class Hangs(Line):
    def step(self, number):
        if number == 30:
            time.sleep(600)
        return super().step(number)

trained(Path(sys.argv[2]), Hangs, steps=60, reproducible=True)
"""


def start(folder):
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def resumes_from(tmp_path, step):
    """The run in `b` resumes after `step` and ends as one in `a` that nothing ends."""
    assert load_tensors(tmp_path / "b/state.safetensors", "run")[1]["step"] == step
    recipe = trained(tmp_path / "b", steps=60)
    assert len(recipe.rates) == 60 - step
    straight = trained(tmp_path / "a", steps=60)
    assert torch.equal(recipe.network.weight, straight.network.weight)


def test_a_killed_process_resumes_to_the_same_weights(tmp_path):
    first = start(tmp_path / "b")
    for line in first.stdout:
        if line.startswith("step 20"):
            break
    first.kill()
    first.communicate(timeout=60)
    step = load_tensors(tmp_path / "b/state.safetensors", "run")[1]["step"]
    assert 19 <= step <= 30
    resumes_from(tmp_path, step)
    assert logged_steps(tmp_path / "b") == logged_steps(tmp_path / "a")


def test_a_run_that_sigterm_ends_resumes_to_the_same_weights(tmp_path):
    class Stopped(Line):
        def step(self, number):
            if number == 20:
                signal.raise_signal(signal.SIGTERM)
            return super().step(number)

    trained(tmp_path / "b", Stopped, steps=60)
    assert (tmp_path / "b/line.safetensors").exists()
    resumes_from(tmp_path, 21)


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


def test_minutes_limit_the_run_and_shape_the_learning_rate(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(trainer, "time", clock)

    class Timed(Line):
        def step(self, number):
            clock.now += 1
            return super().step(number)

    recipe = trained(tmp_path, Timed, minutes=1, check_every=20)
    assert len(recipe.rates) == 59  # some time is left for the validation
    assert recipe.rates[1] > 0.8 * 0.2
    assert recipe.rates[-1] < 0.5 * 0.2  # the schedule follows the elapsed time
    assert not trained(tmp_path, Timed, minutes=1).rates  # the time is over


def test_a_loss_of_nan_ends_the_run_and_keeps_the_last_checkpoint(tmp_path):
    class Explodes(Line):
        def step(self, number):
            return {"loss": torch.tensor(math.nan if number == 3 else 1.0)}

    with pytest.raises(ModelError, match="step 4: loss is nan"):
        trained(tmp_path, Explodes, steps=9, log_every=50)
    assert load_tensors(tmp_path / "state.safetensors", "run")[1]["step"] == 3


def test_a_folder_of_another_run_is_refused(tmp_path, monkeypatch):
    recipe = trained(tmp_path, steps=1)
    other = Line(options(tmp_path, steps=1))
    other.network = torch.nn.Linear(4, 1)
    with pytest.raises(ModelError, match="of another run"):
        train(other, other.options)
    monkeypatch.setattr(Line, "fixed", lambda self: {"rate": 0.3})
    train(recipe, options(tmp_path, steps=2))  # the first run fixed nothing
    monkeypatch.setattr(Line, "fixed", lambda self: {"rate": 0.2})
    with pytest.raises(ModelError, match=r"rate is 0.2, but .* began with 0.3"):
        train(recipe, options(tmp_path, steps=3))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
def test_a_resumed_run_does_not_hold_its_checkpoint(tmp_path):
    """Windows replaces no file that is mapped into memory."""
    recipe = trained(tmp_path, steps=2)
    adam = recipe.optimizers["network"].adam
    moving = {"network": recipe.network, "adam": adam}
    folder = Folder(tmp_path / "other")
    folder.save(moving, {})
    assert folder.load(moving, {}) == {}
    assert adam.state_dict()["state"]
    assert str(folder.state) not in Path("/proc/self/maps").read_text()


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    memory = {"x": torch.ones(1)}
    folder.save({"memory": memory}, {"step": 3})

    def fails(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("sempic.networks.weights.save_file", fails)
    memory["x"].zero_()
    with pytest.raises(Exception, match="disk full"):
        folder.save({"memory": memory}, {"step": 4})
    assert Folder(tmp_path).load({"memory": memory}, {}) == {"step": 3}
    assert memory["x"] == 1


def test_a_large_export_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "LARGEST_EXPORT", 100)
    trained(tmp_path / "run", steps=1, export_dir=tmp_path / "out")
    assert "larger than 16 MiB" in capsys.readouterr().out


def test_the_last_lines_name_what_was_written(tmp_path, capsys):
    class Silent(Line):  # as without data for validation
        def validate(self, state, sheet):
            return {}

    trained(tmp_path / "run", Silent, steps=1, export_dir=tmp_path / "out")
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'run/line.safetensors'}: weights of step 1",
        f"{tmp_path / 'out'}: 2 files",
    ]


def test_a_run_that_had_ended_says_no_speed(tmp_path, capsys):
    for said in (True, False):
        trained(tmp_path, steps=2)
        line = capsys.readouterr().out.splitlines()[-2]  # of the validation
        assert line.startswith("step 2/2  weight ")
        assert [word in line for word in ("s/step", "images/s", "ETA")] == 3 * [said]


def test_a_run_of_more_days_than_python_counts_says_no_end(tmp_path, monkeypatch, capsys):
    def stopped(self, number, step=Line.step):
        if number == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(self, number)

    monkeypatch.setattr(Line, "step", stopped)
    trained(tmp_path, minutes=1e15)
    assert "s/step" in (said := capsys.readouterr().out)
    assert "ETA" not in said


def test_a_run_too_short_for_a_log_exports(tmp_path, monkeypatch):
    monkeypatch.setattr(Line, "validate", lambda *_: {})
    trained(tmp_path / "run", steps=1, log_every=50, export_dir=tmp_path / "out")
    assert (tmp_path / "out/line.safetensors").is_file()
    assert not (tmp_path / "out/log.jsonl").exists()


@pytest.mark.parametrize("name", ["log.jsonl", "out/log.jsonl"])
def test_a_file_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(OutputError, match=f"{name}: cannot write"):
        trained(tmp_path, steps=2, export_dir=tmp_path / "out")


@pytest.mark.parametrize(
    "line", [b"torn", b"\xff\xfe\n", b"3\n", b"{}\n", b"\n", b"[" * 3000 + b"\n"]
)
def test_a_run_resumes_with_a_damaged_log(tmp_path, line):
    trained(tmp_path, steps=2, log_every=1)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes() + line)
    trained(tmp_path, steps=3, log_every=1)
    assert {1, 2, 3} == set(logged_steps(tmp_path))


def test_a_checkpoint_without_its_step_is_refused(tmp_path):
    trained(tmp_path, steps=2)
    tensors, _ = load_tensors(tmp_path / "state.safetensors", "run")
    save_tensors(tensors, "run", {}, tmp_path / "state.safetensors")
    with pytest.raises(ModelError, match="does not say how far"):
        trained(tmp_path, steps=2)
