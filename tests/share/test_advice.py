import pytest

from predictor.share.advice import ADVICE, advise


@pytest.mark.parametrize("code", ADVICE)
def test_each_known_ngrok_error_has_advice_and_its_code(code):
    text = advise(f"failed to start: ERR_NGROK_{code}")
    assert text == f"{ADVICE[code]} (ERR_NGROK_{code})"
    assert "\n" not in text
    assert not text.endswith(".")  # it is used inside a sentence


@pytest.mark.parametrize("code", ["105", "107", "108", "120", "121", "3200", "4018", "8012"])
def test_frequent_ngrok_errors_are_known(code):
    assert code in ADVICE


def test_an_unknown_ngrok_error_refers_to_ngroks_page_about_it():
    assert advise("ERR_NGROK_9999") == (
        "see https://ngrok.com/docs/errors/err_ngrok_9999 (ERR_NGROK_9999)"
    )


def test_the_code_is_found_in_any_argument_of_the_exception():
    error = ValueError("failed to connect session", "Your authtoken: abc", "ERR_NGROK_107")
    assert "revoked" in advise(error)


def test_an_error_without_a_code_is_quoted_in_one_line():
    error = ValueError("failed to connect session", "failed to establish\ntcp connection")
    assert advise(error) == (
        "it failed (failed to connect session, failed to establish tcp connection)"
    )


@pytest.mark.parametrize("text", ["No good: s3cret", "No good: s3cret ERR_NGROK_9999"])
def test_advice_never_contains_the_ngrok_token(text):
    assert "s3cret" not in advise(ValueError(text), "s3cret")
