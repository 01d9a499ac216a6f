import signal

import pytest

from umamba_seg.training.managed import Length
from umamba_seg.training.run_state import spoken
from umamba_seg.training.stop import StopSignal, stop_on_signals


@pytest.mark.parametrize(
    ("length", "suffix"),
    [
        (Length(), ""),
        (Length(1000, 250), ""),
        (Length(epochs=250), "_e250"),
        (Length(iterations=40), "_i40"),
        (Length(12, 40), "_e12i40"),
    ],
)
def test_only_another_length_than_nnunets_is_in_the_folder_name(length, suffix):
    assert length.suffix() == suffix
    assert "__" not in f"nnUNetTrainer{suffix}"


@pytest.mark.parametrize(("iterations", "validation"), [(None, 50), (250, 50), (40, 8), (1, 1)])
def test_validation_is_as_long_as_nnunets_in_proportion(iterations, validation):
    assert Length(iterations=iterations).validation_iterations() == validation


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5340, "89 min"), (5400, "1 h 30 min"), (11100, "3 h 5 min")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert spoken(seconds) == text


def test_the_first_ctrl_c_is_a_wish_and_the_second_an_order():
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_new_signal_has_not_been_asked_for():
    assert not StopSignal().is_set
