"""What to do about ngrok's refusals, by their number: https://ngrok.com/docs/errors/reference."""

from __future__ import annotations

import re

TOKEN_PAGE = "https://dashboard.ngrok.com/get-started/your-authtoken"
NO_TOKEN = "it needs the token of a free account"
ADVICE = {
    "105": f"this is no token of ngrok's; copy it from {TOKEN_PAGE}",
    "107": f"the token was reset or revoked; copy the new one from {TOKEN_PAGE}",
    "108": "the account has a session elsewhere, in another notebook or a kernel that is still"
    " running; end that one (https://dashboard.ngrok.com/agents) and run this again",
    "120": "this version of ngrok is too old; run `pip install -U ngrok pyngrok` and start again",
    "121": "ngrok's agent is too old; run `pyngrok update`, or `pip install -U ngrok`, and start"
    " again",
    "334": "the address is in use by another agent of the account; end that one"
    " (https://dashboard.ngrok.com/agents) and run this again",
    "725": "the account has used up this month's traffic",
    "3200": "the tunnel behind this address is closed; run this again for a new one",
    "4018": f"{NO_TOKEN}; set the one from {TOKEN_PAGE} as NGROK_AUTHTOKEN",
    "8012": "the tunnel is open, but no app listens behind it; run this again",
    "9040": "ngrok accepts no agents from this machine's address",
}


def advise(error: object, token: str | None = None) -> str:
    """One sentence about an error of ngrok's SDK or agent, without the token it may quote."""
    # The SDK's exceptions hold several texts, and the last may be the code.
    texts = error.args if isinstance(error, Exception) else (error,)
    text = " ".join(", ".join(map(str, texts)).split())
    if code := re.search(r"ERR_NGROK_(\d+)", text):
        more = f"see https://ngrok.com/docs/errors/err_ngrok_{code[1]}"
        return f"{ADVICE.get(code[1], more)} ({code[0]})"
    if token:
        text = text.replace(token, "…")
    return f"it could not be used ({text[:200]})"
