"""When the model is compiled, and that nothing is lost where that fails."""

from io import StringIO

import pytest
import torch
from rich.console import Console
from torch import nn

from hcoatnet.config import resolve_config
from hcoatnet.training.compilation import WORTH_COMPILING, Switch, compiled_switch, pays
from hcoatnet.training.journal import Journal
from hcoatnet.training.preparation import build_accelerator


def config(**settings):
    fixed = {"model": "test_convnext", "image_size": 32, "batch_size": 4, "device": "cpu", "precision": "bf16"}
    return resolve_config({**fixed, **settings})


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)
        self.sizes = []

    def forward(self, photos):
        self.sizes.append(len(photos))
        return self.head(nn.functional.dropout(self.norm(photos), 0.5, self.training).mean((2, 3)))


def compiled(monkeypatch, compiler, settings):
    monkeypatch.setattr(torch, "compile", compiler)
    accelerator = build_accelerator(settings)
    switch, said = Switch(Small(), settings.batch_size, settings.image_size), StringIO()
    journal = Journal(Console(file=said, width=1000))
    compiled_switch(switch, accelerator.prepare(switch), settings, accelerator, 100, journal)
    return switch, said.getvalue()


def test_auto_compiles_where_the_epochs_are_worth_it():
    accelerator = build_accelerator(config())
    atto = {"model": "convnext_atto", "image_size": 128}  # 0.18 G multiply-adds a photo
    assert not pays(config(**atto, epochs=10), accelerator, 700)
    assert pays(config(**atto, epochs=1000), accelerator, 700)
    assert not pays(config(**atto, epochs=1000, deterministic=True), accelerator, 700)
    assert not pays(config(**atto, epochs=1000), build_accelerator(config(precision="fp32")), 700)
    accelerator = build_accelerator(config())
    few = int(WORTH_COMPILING / 0.18e9)
    assert not pays(config(**atto, epochs=1), accelerator, int(0.9 * few))
    assert pays(config(**atto, epochs=1), accelerator, int(1.1 * few))


@pytest.mark.parametrize("choice", ["auto", "false"])
def test_short_trainings_are_not_compiled(monkeypatch, choice):
    def never(*_, **__):
        raise AssertionError

    switch, said = compiled(monkeypatch, never, config(compile=choice))
    assert switch.compiled is None
    assert said == ""


def test_only_whole_batches_run_compiled(monkeypatch):
    calls = []

    def compiler(forward, dynamic):
        assert dynamic is False
        return lambda photos: calls.append(len(photos)) or forward(photos)

    switch, said = compiled(monkeypatch, compiler, config(compile="true"))
    assert "Compiling" in said
    assert calls == [4]
    switch(torch.zeros(4, 3, 32, 32))
    switch(torch.zeros(3, 3, 32, 32))
    assert calls == [4, 4]
    assert switch.model.sizes == [4, 4, 3]


def test_smaller_photos_and_frozen_parts_run_as_they_are(monkeypatch):
    calls = []
    switch, _ = compiled(
        monkeypatch, lambda forward, dynamic: lambda photos: calls.append(1) or forward(photos), config(compile="true")
    )
    calls.clear()
    switch(torch.zeros(4, 3, 16, 16))
    switch.all_learns = False
    switch(torch.zeros(4, 3, 32, 32))
    assert calls == []
    switch.all_learns = True
    switch(torch.zeros(4, 3, 32, 32))
    assert calls == [1]


def test_only_epochs_that_would_run_compiled_count():
    accelerator = build_accelerator(config())
    atto = {"model": "convnext_atto", "image_size": 128, "epochs": 1000, "init": "pretrained"}
    assert pays(config(**atto), accelerator, 700)
    assert not pays(config(**atto, frozen_epochs=400), accelerator, 700)
    assert not pays(config(**atto, start_size=64), accelerator, 700)


def broken_forward(forward, dynamic):
    def fail(photos):
        raise RuntimeError("C++ compile error\nwith a long text")

    return fail


class BrokenBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("C++ compile error\nwith a long text")


def broken_backward(forward, dynamic):
    return lambda photos: BrokenBackward.apply(forward(photos))


@pytest.mark.parametrize("compiler", [broken_forward, broken_backward])
def test_where_compiling_fails_the_model_runs_as_it_is(monkeypatch, compiler):
    switch, said = compiled(monkeypatch, compiler, config(compile="true"))
    assert switch.compiled is None
    assert said.splitlines()[-1] == "The model could not be compiled and runs as it is: C++ compile error"
    switch(torch.zeros(4, 3, 32, 32)).sum().backward()


def test_the_trial_leaves_no_trace(monkeypatch):
    torch.manual_seed(3)
    Small()
    expected = torch.rand(2)
    torch.manual_seed(3)
    switch, _ = compiled(monkeypatch, lambda forward, dynamic: forward, config(compile="true"))
    assert torch.equal(torch.rand(2), expected)
    assert switch.model.norm.num_batches_tracked == 0
    assert torch.equal(switch.model.norm.running_mean, torch.zeros(3))
    assert all(parameter.grad is None for parameter in switch.parameters())
