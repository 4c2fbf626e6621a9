import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs.errors import PermanentError, RetryableError
from jobs.local.airflow_client import AirflowClient
from jobs.local.ports import LOOPBACK, find_free_port


class Pages(BaseHTTPRequestHandler):
    """An API whose login works, that has 250 task instances, and that fails elsewhere."""

    def do_POST(self) -> None:
        self._answer(201, {"access_token": "token"})

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if not path.endswith("/taskInstances"):
            self._answer(503 if "broken" in path else 404, {"detail": "no such run"})
            return
        offset = int(dict(word.split("=") for word in query.split("&"))["offset"])
        numbers = range(offset, min(offset + 100, 250))
        tasks = [{"task_id": "shard", "map_index": number, "state": None, "try_number": 0} for number in numbers]
        self._answer(200, {"task_instances": tasks, "total_entries": 250})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def client() -> Iterator[AirflowClient]:
    with ThreadingHTTPServer((LOOPBACK, 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with AirflowClient(f"http://{LOOPBACK}:{server.server_port}", "admin", "secret") as client:
            yield client
        server.shutdown()
        thread.join()


def test_every_page_of_a_list_is_read(client: AirflowClient) -> None:
    assert [task.map_index for task in client.read_task_instances("dag", "run")] == list(range(250))


def test_refusal_is_permanent_and_says_why(client: AirflowClient) -> None:
    with pytest.raises(PermanentError, match=r"404.*no such run"):
        client.read_run("dag", "gone")


def test_failure_of_the_server_is_worth_another_try(client: AirflowClient) -> None:
    with pytest.raises(RetryableError, match="503"):
        client.read_run("dag", "broken")


def test_nobody_answering_is_worth_another_try() -> None:
    url = f"http://{LOOPBACK}:{find_free_port()}"

    with AirflowClient(url, "admin", "secret") as client, pytest.raises(RetryableError, match="does not answer"):
        client.read_health()
