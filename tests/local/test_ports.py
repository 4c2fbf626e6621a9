import socket
from dataclasses import replace

import pytest

from jobs.errors import PermanentError
from jobs.local.ports import (
    LOOPBACK,
    StackPorts,
    WantedPorts,
    choose_ports,
    find_free_port,
    is_port_free,
    is_port_open,
    require_free_port,
)


def test_remembered_ports_are_kept_and_wanted_ones_win() -> None:
    remembered = StackPorts(postgres=1111, s3=2222, airflow=3333, query=5555)

    assert choose_ports(WantedPorts(s3=4444), remembered) == replace(remembered, s3=4444)
    assert choose_ports(WantedPorts(query=6666), remembered) == replace(remembered, query=6666)


def test_without_memory_every_port_is_free_and_its_own() -> None:
    ports = choose_ports(WantedPorts(), None)

    chosen = {ports.postgres, ports.s3, ports.airflow, ports.query}
    assert len(chosen) == 4
    assert all(is_port_free(port) for port in chosen)


@pytest.mark.parametrize(("name", "usual_port"), [("airflow", 8080), ("query", 8091)])
def test_another_port_is_chosen_where_the_usual_one_is_taken(name: str, usual_port: int) -> None:
    with socket.socket() as holder:
        if is_port_free(usual_port):
            holder.bind((LOOPBACK, usual_port))
            holder.listen()

        assert getattr(choose_ports(WantedPorts(), None), name) != usual_port


def test_taken_port_is_refused_with_the_setting_that_changes_it() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]

        assert is_port_open(port)
        with pytest.raises(PermanentError, match=rf"port {port} is taken.*CATALOG_S3_PORT"):
            require_free_port(port, "CATALOG_S3_PORT")

    assert not is_port_open(port)


def test_port_taken_on_all_interfaces_is_taken_on_loopback() -> None:
    with socket.create_server(("", 0)) as server:
        assert not is_port_free(server.getsockname()[1])


def test_free_port_may_be_listened_on() -> None:
    with socket.create_server((LOOPBACK, find_free_port())):
        pass
