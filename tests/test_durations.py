"""Durations and the calendar made of them."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgr_jax import durations
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config


@pytest.mark.parametrize(
    ("duration", "steps"),
    [("7 steps", 7), ("1 step", 1), ("1 epoch", 13), ("2 epochs", 25), ("0.5 epochs", 7)],
)
def test_whole_steps_cover_the_duration(duration: str, steps: int) -> None:
    assert durations.whole_steps(duration, Fraction(100, 8)) == steps


@pytest.mark.parametrize("duration", ["", "3", "epochs", "-1 epochs", "2.5 steps", "3 days"])
def test_anything_else_is_not_a_duration(duration: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        durations.parse(duration)


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 6))
def test_epochs_are_due_at_the_first_step_that_covers_them(
    examples: int, batch_size: int, epochs: int
) -> None:
    epoch = Fraction(examples, batch_size)
    last = math.ceil(epochs * epoch)
    due = [step for step in range(1, last + 1) if durations.is_due(step, epoch)]
    # By counting examples, without fractions. (Several epochs may end within one step.)
    expected = {-(-n * examples // batch_size) for n in range(1, epochs + 1)}
    assert set(due) == expected


@given(st.integers(1, 300), st.integers(1, 64))
def test_calendar_ends_with_everything_and_epochs_follow_one_another(
    examples: int, batch_size: int
) -> None:
    config = Config(batch_size=batch_size, duration="4 epochs", evaluate_every="3 epochs")
    config.loss.gce_start = "2 epochs"
    calendar = Calendar.of(config, examples)
    last = calendar.due(calendar.total_steps)
    assert last.epoch_line
    assert last.evaluation
    assert last.checkpoint
    previous = 0
    for step in range(1, calendar.total_steps + 1):
        if calendar.due(step).epoch_line:
            assert calendar.previous_epoch_line(step) == previous
            previous = step
    assert calendar.is_all_gce(math.ceil(2 * calendar.epoch))
    assert not calendar.is_all_gce(math.ceil(2 * calendar.epoch) - 1)


@pytest.mark.parametrize(
    ("pretrained", "fade_steps"), [("efficientnet-lite0", 0), ("runs/other", 0), ("", 13)]
)
def test_an_automatic_fade_is_for_networks_without_features(
    pretrained: str, fade_steps: int
) -> None:
    config = Config(batch_size=4, duration="25 steps", pretrained=pretrained)
    config.loss.gce_fade = "auto"
    calendar = Calendar.of(config, 100)
    assert calendar.gce_fade_steps == fade_steps
    assert calendar.is_all_gce(fade_steps)
    assert fade_steps == 0 or not calendar.is_all_gce(fade_steps - 1)


@given(
    st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=1, max_size=9),
    st.integers(1, 4),
    st.integers(1, 300),
    st.integers(1, 64),
)
def test_a_run_ends_where_its_accuracy_has_not_risen_for_the_patience(
    accuracies: list[float], patience: int, examples: int, batch_size: int
) -> None:
    batch_size = min(batch_size, examples)
    config = Config(batch_size=batch_size, duration="9 epochs", early_stopping=f"{patience} epochs")
    calendar = Calendar.of(config, examples)
    steps = [-(-number * examples // batch_size) for number in range(1, 10)]
    expected = steps[-1]
    for number in range(len(accuracies)):
        so_far = accuracies[: number + 1]
        if number - so_far.index(max(so_far)) >= patience:
            expected = steps[number]
            break
    found = calendar.last_step(dict(zip(steps, accuracies, strict=False)))
    assert found == expected
    assert calendar.ending_at(found).due(found).checkpoint
