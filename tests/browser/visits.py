"""What a page in the browser requested, and its errors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route

_LOCAL_SCHEMES = ("about", "blob", "data", "file")
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass
class Visit:
    """A page in the browser.

    Attributes:
        page: playwright's, with ``locator``, ``click``, ``screenshot`` and so on.
        requests: address of everything that the page requested, data of its own left out.
        foreign: those of them that went to another host; the test fails if there are any.
        errors: what the console shows as errors, and exceptions that no one caught.
        warnings: what the console shows as warnings.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def inaccessible(self) -> list[str]:
        """What axe finds that keeps the page from those who use a keyboard or a screen reader, or see less well."""
        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in found]


Open = Callable[..., Visit]


def is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in _LOCAL_SCHEMES or parts.hostname in _LOCAL_HOSTS


def listen(visit: Visit) -> None:
    """Keeps the visit's lists, and cuts off what is not local."""

    def route(route: Route) -> None:
        url = route.request.url
        visit.requests.append(url)
        if is_local(url):
            route.continue_()
        else:
            visit.foreign.append(url)
            route.abort()

    def console(kind: str, text: str) -> None:
        {"error": visit.errors, "warning": visit.warnings}.get(kind, []).append(text)

    def web_socket(url: str) -> None:
        visit.requests.append(url)
        if not is_local(url):
            visit.foreign.append(url)

    visit.page.context.route("**/*", route)
    visit.page.on("console", lambda message: console(message.type, message.text))
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("websocket", lambda socket: web_socket(socket.url))
