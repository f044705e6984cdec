"""Lines beside a result: said once, as soon as the call is no longer refused, and dropped where it is."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from vae_jax.errors import InputError, holding_notes, note, release_notes, waiting_notes


def test_notes_wait_and_are_said_once(capsys):
    note("at once")
    note("at once")
    assert capsys.readouterr().err == "at once\nat once\n"
    with holding_notes():
        note("a")
        with holding_notes():
            note("b")
        note("a")
        assert capsys.readouterr().err == ""
        release_notes()
        assert capsys.readouterr().err == "a\nb\n"
        note("b")
        note("c")
        assert capsys.readouterr().err == "c\n"
    assert capsys.readouterr().err == ""
    release_notes()  # nothing to do
    note("at once")
    assert capsys.readouterr().err == "at once\n"


@pytest.mark.parametrize(("error", "said"), [(InputError("no"), ""), (OSError("full"), "a\n"), (SystemExit(0), "a\n")])
def test_a_refusal_drops_what_waits(capsys, error, said):
    @holding_notes()
    def call():
        note("a")
        raise error

    with pytest.raises(type(error)):
        call()
    assert capsys.readouterr().err == said


def test_what_waits_is_known_to_a_signal_in_any_thread():
    """SIGTERM ends the process without leaving the block (`cli.stop`)."""
    with holding_notes():
        note("a")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(waiting_notes).result() == ["a"]
        release_notes()
        assert waiting_notes() == []
        note("b")
    assert waiting_notes() == []


def test_a_call_that_is_refused_leaves_the_next_one_alone(capsys):
    @holding_notes()
    def call(refuse):
        note("a")
        if refuse:
            raise InputError("no")

    with pytest.raises(InputError):
        call(True)
    call(False)
    assert capsys.readouterr().err == "a\n"
