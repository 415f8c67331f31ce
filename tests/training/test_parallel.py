"""Work in other processes: what it says on the way arrives, to the last word."""

from eosfm.training.parallel import relay


def test_the_last_word_of_a_short_run_is_heard():
    """The listener looked every 0.2 s and not once more at the end: what was said since then was lost."""
    heard: list[tuple[float, str]] = []
    with relay(lambda done, line: heard.append((done, line))) as told:
        assert told is not None
        told(0.5, "half")
        told(1.0, "all")
    assert heard == [(0.5, "half"), (1.0, "all")]
    with relay(None) as told:
        assert told is None
