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


def test_wanted_ports_take_precedence_over_remembered_ones() -> None:
    remembered = StackPorts(postgres=1111, s3=2222, airflow=3333, query=5555)

    assert choose_ports(WantedPorts(s3=4444), remembered) == replace(remembered, s3=4444)
    assert choose_ports(WantedPorts(query=6666), remembered) == replace(remembered, query=6666)


def test_new_ports_are_free_and_different() -> None:
    ports = choose_ports(WantedPorts(), None)

    chosen = {ports.postgres, ports.s3, ports.airflow, ports.query}
    assert len(chosen) == 4
    assert all(is_port_free(port) for port in chosen)


@pytest.mark.parametrize(("name", "default_port"), [("airflow", 8080), ("query", 8091)])
def test_another_port_is_chosen_if_the_default_is_taken(name: str, default_port: int) -> None:
    with socket.socket() as holder:
        if is_port_free(default_port):
            holder.bind((LOOPBACK, default_port))
            holder.listen()

        assert getattr(choose_ports(WantedPorts(), None), name) != default_port


def test_taken_port_is_reported_with_its_setting() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]

        assert is_port_open(port)
        with pytest.raises(PermanentError, match=rf"port {port} is taken.*CATALOG_S3_PORT"):
            require_free_port(port, "CATALOG_S3_PORT")

    assert not is_port_open(port)


def test_port_taken_on_all_interfaces_is_taken_on_loopback() -> None:
    with socket.create_server(("", 0)) as server:
        assert not is_port_free(server.getsockname()[1])


def test_free_port_can_be_listened_on() -> None:
    with socket.create_server((LOOPBACK, find_free_port())):
        pass
