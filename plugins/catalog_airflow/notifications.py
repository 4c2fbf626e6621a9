"""Send notifications to the URLs in ``CATALOG_NOTIFY_URLS`` through Apprise.

Not through Airflow's notifier for Apprise, which discards the result and sends to one URL after the other.

Callbacks of tasks run in the task's process, and callbacks of runs in the DAG processor. Both log a notification that
cannot be sent as one line, and continue.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from airflow.configuration import conf
from airflow.sdk import Context

if TYPE_CHECKING:
    from apprise import NotifyResult

    from jobs.setting_types import Level

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
    """Send a message to every URL whose level it reaches, to all at once. Log each that fails, by its scheme."""
    urls = _choose_urls(message.level)
    if not urls:
        return
    import apprise

    # It would write its own lines into the log of the task, with parts of the URLs.
    logging.getLogger("apprise").propagate = False
    services = apprise.Apprise()
    for url in urls:
        if not services.add(url):
            _log_failure(message, url, "Apprise does not accept this URL")
    results = services.notify(
        title=message.what,
        body=message.body,
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=apprise.NotifyType.FAILURE if message.level == "error" else apprise.NotifyType(message.level),
        timeout=SEND_SECONDS,
    )
    for result in results:
        if result:
            log.info("sent the notification %r to %s", message.what, _read_scheme(result.url))
        else:
            _log_failure(message, result.url, _find_reason(result, urls))


def _find_reason(result: "NotifyResult", urls: Sequence[str]) -> str:
    """Return what Apprise logged first about a service, without parts of a URL."""
    lines = [str(entry.message) for entry in result.logs() if entry.level in ("WARNING", "ERROR", "CRITICAL")]
    reason = lines[0] if lines else "Apprise gives no reason"
    for url in urls:
        reason = reason.replace(url.partition("://")[2], "...")
    return reason


def _log_failure(message: Message, url: str, reason: str) -> None:
    log.error("the notification %r was not sent to %s: %s", message.what, _read_scheme(url), reason)


def _read_scheme(url: str) -> str:
    return url.partition("://")[0]


def _choose_urls(level: "Level") -> list[str]:
    from jobs.setting_types import LEVELS
    from jobs.settings import load_airflow_settings

    chosen = []
    for target in load_airflow_settings().notify_urls:
        least, _, rest = target.partition(":")
        url, least = (rest, least) if least in LEVELS else (target, LEVELS[0])
        if LEVELS.index(level) >= LEVELS.index(least):
            chosen.append(url)
    return chosen
