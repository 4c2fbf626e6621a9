import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from demo.airflow_client import AirflowClient
from jobs.errors import PermanentError, RetryableError
from jobs.local.ports import LOOPBACK, find_free_port


class StubApi(BaseHTTPRequestHandler):
    """Accepts every login, lists 250 task instances, and fails on other requests."""

    def do_POST(self) -> None:
        self._respond(201, {"access_token": "token"})

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if not path.endswith("/taskInstances"):
            self._respond(503 if "broken" in path else 404, {"detail": "no such run"})
            return
        offset = int(dict(word.split("=") for word in query.split("&"))["offset"])
        numbers = range(offset, min(offset + 100, 250))
        tasks = [{"task_id": "shard", "map_index": number, "state": None, "try_number": 0} for number in numbers]
        self._respond(200, {"task_instances": tasks, "total_entries": 250})

    def log_message(self, *_: object) -> None:
        pass

    def _respond(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def client() -> Iterator[AirflowClient]:
    with ThreadingHTTPServer((LOOPBACK, 0), StubApi) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        with AirflowClient(f"http://{LOOPBACK}:{server.server_port}", "admin", "secret") as client:
            yield client
        server.shutdown()
        thread.join()


def test_reads_every_page_of_a_list(client: AirflowClient) -> None:
    assert [task.map_index for task in client.read_task_instances("dag", "run")] == list(range(250))


def test_rejected_request_is_permanent_and_quotes_the_reason(client: AirflowClient) -> None:
    with pytest.raises(PermanentError, match=r"404.*no such run"):
        client.read_run("dag", "gone")


def test_server_error_is_retryable(client: AirflowClient) -> None:
    with pytest.raises(RetryableError, match="503"):
        client.read_run("dag", "broken")


def test_missing_server_is_retryable() -> None:
    url = f"http://{LOOPBACK}:{find_free_port()}"

    with AirflowClient(url, "admin", "secret") as client, pytest.raises(RetryableError, match="does not respond"):
        client.read_run("dag", "run")
