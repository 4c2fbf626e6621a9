"""Send notifications to the URLs in ``CATALOG_NOTIFY_URLS``, through Airflow's notifier for Apprise.

Callbacks of tasks run in the task's process, and callbacks of runs in the DAG processor. Both log a notification that
cannot be sent as one line, and continue.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from airflow.configuration import conf
from airflow.sdk import Context

if TYPE_CHECKING:
    from jobs.settings import Level

SEND_SECONDS = 10.0
"""Time to send a message to all URLs. Airflow kills a task 20 s after its end, and a DAG processor after 50 s."""

log = logging.getLogger("airflow.task")


@dataclass(frozen=True)
class Message:
    """What happened, why, and what to do. ``link`` is a path on Airflow's address, or a URL."""

    level: "Level"
    what: str
    why: str
    what_to_do: str
    link: str

    @property
    def body(self) -> str:
        """Return the text below the title."""
        address = conf.get("api", "base_url", fallback="") or ""
        return f"{self.why}\n\n{self.what_to_do}\n\n{urljoin(address, self.link)}"


Describe = Callable[[Context], Message | None]
Callback = Callable[[Context], None]


def notify(describe: Describe) -> Callback:
    """Return a callback that sends the message of an event, or nothing if ``describe`` returns None."""

    def send_message(context: Context) -> None:
        try:
            message = describe(context)
            if message is not None:
                send(message)
        except Exception as error:  # noqa: BLE001  A notification must never fail a task.
            log.error("no notification was sent, because it failed with %s: %s", type(error).__name__, error)

    return send_message


def send(message: Message) -> None:
    """Send a message to every URL whose level it reaches. Log each URL that fails, by its scheme."""
    urls = _choose_urls(message.level)
    if not urls:
        return
    _load_apprise()
    deliveries = [_Delivery(url, message) for url in urls]
    deadline = time.monotonic() + SEND_SECONDS
    for delivery in deliveries:
        delivery.join(max(0.0, deadline - time.monotonic()))
        scheme, error = delivery.url.partition("://")[0], delivery.error
        if error:
            log.error("the notification %r was not sent to %s: %s", message.what, scheme, error)
        else:
            log.info("sent the notification %r to %s", message.what, scheme)


def _choose_urls(level: "Level") -> list[str]:
    from jobs.settings import LEVELS, load_airflow_settings

    chosen = []
    for target in load_airflow_settings().notify_urls:
        least, _, rest = target.partition(":")
        url, least = (rest, least) if least in LEVELS else (target, LEVELS[0])
        if LEVELS.index(level) >= LEVELS.index(least):
            chosen.append(url)
    return chosen


def _load_apprise() -> None:
    """Import everything that a first message needs. That takes seconds, which do not count as time to send."""
    import airflow.providers.apprise.notifications.apprise  # noqa: F401
    from apprise.manager_plugins import NotificationManager

    NotificationManager().schemas()


class _Delivery(threading.Thread):
    """Sends a message to one URL. ``error`` says why it was not sent, and is None once it was.

    Apprise limits each wait for a server, but not the number of waits. A daemon thread does not delay the exit.
    """

    def __init__(self, url: str, message: Message) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.error: str | None = f"no response within {SEND_SECONDS:g} s"
        self._message = message
        self.start()

    def run(self) -> None:
        """Send the message, and set ``error``."""
        try:
            self.error = self._send()
        except Exception as failure:  # noqa: BLE001  Apprise has plugins for 140 services.
            self.error = self._hide_secrets(f"{type(failure).__name__}: {failure}")

    def _send(self) -> str | None:
        import apprise
        from airflow.providers.apprise.notifications.apprise import AppriseNotifier

        with _catch_warnings() as lines:
            # Apprise would quote a malformed URL.
            if not apprise.Apprise().add(self.url):
                return "Apprise does not accept this URL"
            level = self._message.level
            notifier = AppriseNotifier(
                title=self._message.what,
                body=self._message.body,
                notify_type=apprise.NotifyType.FAILURE if level == "error" else apprise.NotifyType(level),
                config=self.url,
            )
            # Calling the notifier itself would render the texts as Jinja templates.
            notifier.notify({})
        return self._hide_secrets(lines[0]) if lines else None

    def _hide_secrets(self, line: str) -> str:
        return line.replace(self.url, "the URL").replace(self.url.partition("://")[2], "...")


@contextmanager
def _catch_warnings() -> Iterator[list[str]]:
    """Yield a list that gets what Apprise logs in this thread: the notifier does not return its result."""
    lines: list[str] = []
    this_thread = threading.get_ident()

    class Catcher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == this_thread:
                lines.append(record.getMessage())

    handler = Catcher(logging.WARNING)
    of_apprise = logging.getLogger("apprise")
    of_apprise.propagate = False
    of_apprise.addHandler(handler)
    try:
        yield lines
    finally:
        of_apprise.removeHandler(handler)
