"""Send notifications to the URLs in ``CATALOG_NOTIFY_URLS``, through Airflow's notifier for Apprise.

Callbacks of tasks run in the task's process, and callbacks of runs in the DAG processor. Both log a notification that
cannot be sent as one line, and continue.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from airflow.configuration import conf
from airflow.sdk import Context

if TYPE_CHECKING:
    from jobs.settings import Level

SEND_SECONDS = 10.0
"""Time to send a message to one URL. A DAG processor is killed after 50 seconds."""

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
    from jobs.settings import LEVELS, load_airflow_settings

    urls = load_airflow_settings().notify_urls
    if urls:
        _load_apprise()
    for target in urls:
        level, _, rest = target.partition(":")
        url, least = (rest, level) if level in LEVELS else (target, LEVELS[0])
        if LEVELS.index(message.level) >= LEVELS.index(least):
            error = _send_in_time(url, message)
            name = url.partition("://")[0]
            if error:
                log.error("the notification %r was not sent to %s: %s", message.what, name, error)
            else:
                log.info("sent the notification %r to %s", message.what, name)


def _load_apprise() -> None:
    """Import everything that a first message needs. That takes seconds, which do not count as time to send."""
    import airflow.providers.apprise.notifications.apprise  # noqa: F401
    from apprise.manager_plugins import NotificationManager

    NotificationManager().schemas()


def _send_in_time(url: str, message: Message) -> str | None:
    """Send a message, and return the error, if any."""
    error: str | None = f"no response within {SEND_SECONDS:.0f} s"

    def deliver() -> None:
        nonlocal error
        try:
            error = _deliver(url, message)
        except Exception as failure:  # noqa: BLE001  Apprise has plugins for 140 services.
            error = f"{type(failure).__name__}: {failure}"

    # Apprise limits each wait for a server, but not the number of waits. A daemon thread does not delay the exit.
    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    thread.join(SEND_SECONDS)
    return error


def _deliver(url: str, message: Message) -> str | None:
    import apprise
    from airflow.providers.apprise.notifications.apprise import AppriseNotifier

    notify_type = apprise.NotifyType.FAILURE if message.level == "error" else apprise.NotifyType(message.level)
    # The notifier does not return the result, which Apprise only logs.
    logging.getLogger("apprise").propagate = False
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as lines:
        notifier = AppriseNotifier(title=message.what, body=message.body, notify_type=notify_type, config=url)
        # Calling the notifier itself would render the texts as Jinja templates.
        notifier.notify({})
        return next(iter(lines.getvalue().splitlines()), None)
