import pytest

from predictor.share.advice import ADVICE, advise


@pytest.mark.parametrize("code", ADVICE)
def test_each_known_refusal_has_advice_and_its_number(code):
    said = advise(f"failed to start: ERR_NGROK_{code}")
    assert said == f"{ADVICE[code]} (ERR_NGROK_{code})"
    assert "\n" not in said
    assert not said.endswith(".")  # it goes on in the middle of a sentence


@pytest.mark.parametrize("code", ["105", "107", "108", "120", "121", "3200", "4018", "8012"])
def test_the_refusals_that_users_meet_are_known(code):
    assert code in ADVICE


def test_any_other_refusal_has_the_page_that_explains_it():
    assert advise("ERR_NGROK_9999") == (
        "see https://ngrok.com/docs/errors/err_ngrok_9999 (ERR_NGROK_9999)"
    )


def test_the_code_may_be_in_any_part_of_the_sdks_exception():
    error = ValueError("failed to connect session", "Your authtoken: abc", "ERR_NGROK_107")
    assert "revoked" in advise(error)


def test_a_failure_without_a_number_says_what_the_library_says_in_one_line():
    error = ValueError("failed to connect session", "failed to establish\ntcp connection")
    assert advise(error) == (
        "it could not be used (failed to connect session, failed to establish tcp connection)"
    )


@pytest.mark.parametrize("text", ["No good: s3cret", "No good: s3cret ERR_NGROK_9999"])
def test_the_token_is_not_printed(text):
    assert "s3cret" not in advise(ValueError(text), "s3cret")
