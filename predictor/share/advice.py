"""Advice for ngrok's error codes, which https://ngrok.com/docs/errors/reference lists."""

import re

TOKEN_PAGE = "https://dashboard.ngrok.com/get-started/your-authtoken"
NO_TOKEN = "it needs the token of a free ngrok account"
ADVICE = {
    "105": f"this is not an ngrok token; copy yours from {TOKEN_PAGE}",
    "107": f"the token was reset or revoked; copy the new one from {TOKEN_PAGE}",
    "108": "the account already has a session, in another notebook or in a kernel that is still"
    " running; end it (https://dashboard.ngrok.com/agents) and run this again",
    "120": "this version of ngrok is too old; run `pip install -U ngrok pyngrok` and start again",
    "121": "ngrok's agent is too old; run `pyngrok update`, or `pip install -U ngrok`, and start"
    " again",
    "334": "another agent of this account uses the address; end it"
    " (https://dashboard.ngrok.com/agents) and run this again",
    "725": "the account has used up this month's traffic",
    "3200": "the tunnel behind this address is closed; run this again to open a new one",
    "4018": f"{NO_TOKEN}; copy it from {TOKEN_PAGE} and set it as NGROK_AUTHTOKEN",
    "8012": "the tunnel is open, but the app does not listen at its local end; run this again",
    "9040": "ngrok does not accept agents from this machine's IP address",
}


def advise(error: object, token: str | None = None) -> str:
    """Return a clause that says what an ngrok error means and what to do. It hides the token."""
    # The SDK's exceptions have several arguments; the error code can be the last of them.
    texts = error.args if isinstance(error, Exception) else (error,)
    text = " ".join(", ".join(map(str, texts)).split())
    if code := re.search(r"ERR_NGROK_(\d+)", text):
        reference = f"see https://ngrok.com/docs/errors/err_ngrok_{code[1]}"
        return f"{ADVICE.get(code[1], reference)} ({code[0]})"
    if token:
        text = text.replace(token, "…")
    return f"it failed ({text[:200]})"
