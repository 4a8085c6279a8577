from io import StringIO

from rich.console import Console

from experiments.progress import Lines, progress


def lines_of(durations: list[float], total: int, done: int = 0) -> list[str]:
    """What a job prints whose steps take this long."""
    now, written = [0.0], list[str]()
    lines = Lines("train", total, written.append, done, clock=lambda: now[0])
    for duration in durations:
        now[0] += duration
        lines.advance(note="loss 0.5")
    lines.close()
    return written


def test_a_short_job_prints_nothing() -> None:
    assert lines_of([0.01] * 400, 400) == []


def test_a_long_job_prints_at_most_every_five_seconds_and_how_long_it_took() -> None:
    written = lines_of([1.0] * 60, 60)
    assert written[0] == "train: 5/60, about 0:55 left  loss 0.5"
    assert written[-1] == "train: 60/60 in 1:00"
    assert len(written) == 12


def test_steps_of_an_earlier_run_do_not_count_for_the_speed() -> None:
    assert lines_of([5.0, 5.0], 100, done=90)[0] == "train: 91/100, about 0:45 left  loss 0.5"


def test_no_escape_codes_outside_a_terminal_and_a_bar_on_one() -> None:
    plain, terminal = StringIO(), StringIO()
    for console in (Console(file=plain), Console(file=terminal, force_terminal=True, width=100)):
        with progress("train", 3, console=console) as advance:
            for _ in range(3):
                advance(note="loss 0.5")
    assert plain.getvalue() == ""
    assert "3/3" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
