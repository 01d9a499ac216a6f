"""Updates with what is not finite: skipped, counted, and in the end told."""

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from umamba_seg.errors import ModelError
from umamba_seg.training.guard import GuardedUpdates


class Loop(nnUNetTrainer):
    """The part of nnU-Net's trainer that the guard builds on."""

    def __init__(self, optimizer=torch.optim.SGD, grad_scaler=None, **options):
        self.network = nn.Linear(2, 1)
        self.made = optimizer, options
        self.grad_scaler, self.current_epoch, self.said = grad_scaler, 0, []

    def initialize(self):
        kind, options = self.made
        self.optimizer = kind(self.network.parameters(), 0.1, **options)

    def train_step(self, batch):
        self.optimizer.zero_grad()
        loss = self.network(batch["data"]).square().mean()
        if self.grad_scaler is None:
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
        else:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        return {"loss": loss.detach()}

    def print_to_log_file(self, text):
        self.said.append(text)


def guarded(**given):
    kind = type("Guarded", (GuardedUpdates, Loop), {"__init__": Loop.__init__, "most_in_a_row": 3})
    loop = kind(**given)
    loop.initialize()
    return loop


GOOD, BAD = {"data": torch.tensor([[1.0, 2.0]])}, {"data": torch.tensor([[1.0, float("nan")]])}


def state_of(loop):
    momentum = [
        value.clone() for entry in loop.optimizer.state.values() for value in entry.values() if value is not None
    ]
    return [parameter.detach().clone() for parameter in loop.network.parameters()] + momentum


@pytest.mark.parametrize(
    "given", [{"momentum": 0.9}, {"momentum": 0.9, "weight_decay": 0.1}, {"optimizer": torch.optim.AdamW}], ids=str
)
def test_a_bad_update_changes_neither_weights_nor_momentum(given):
    loop = guarded(**given)
    loop.train_step(GOOD)
    before = state_of(loop)

    loop.train_step(BAD)

    assert all(torch.equal(now, old) for now, old in zip(state_of(loop), before, strict=True))
    assert loop.non_finite == 1
    assert "not finite" in loop.said[-1]
    loop.train_step(GOOD)
    assert not torch.equal(state_of(loop)[0], before[0])


def test_many_in_a_row_stop_with_advice():
    loop = guarded()
    loop.train_step(BAD)
    loop.train_step(BAD)
    loop.train_step(GOOD)  # the row begins anew
    loop.train_step(BAD)
    loop.train_step(BAD)

    with pytest.raises(ModelError, match="3 times in a row") as fault:
        loop.train_step(BAD)

    assert "--precision fp32" in fault.value.how[0]
    assert all(parameter.isfinite().all() for parameter in loop.network.parameters())


def test_what_the_scaler_skips_is_counted_apart():
    loop = guarded(grad_scaler=torch.amp.GradScaler("cpu"))
    before = state_of(loop)

    loop.train_step(BAD)

    assert (loop.non_finite, loop.skipped_by_scaler) == (0, 1)
    assert all(torch.equal(now, old) for now, old in zip(state_of(loop), before, strict=True))


def test_a_guarded_step_inside_another_counts_once():
    loop = guarded()
    loop.guarded(loop.train_step, BAD)

    assert (loop.non_finite, loop._in_a_row) == (1, 1)
