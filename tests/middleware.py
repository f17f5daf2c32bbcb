"""A policy as strict as can be: nothing inline, nothing from elsewhere."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

KINDS = "script-src", "style-src", "img-src", "connect-src", "form-action"
POLICY = "; ".join(["default-src 'none'", *(f"{kind} 'self'" for kind in KINDS)])

Answer = Callable[[HttpRequest], HttpResponse]


def strict_policy(get_response: Answer) -> Answer:
    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return answer
