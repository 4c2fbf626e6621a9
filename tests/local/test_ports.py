import socket

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
    remembered = StackPorts(postgres=1111, s3=2222, airflow=3333)

    assert choose_ports(WantedPorts(s3=4444), remembered) == StackPorts(postgres=1111, s3=4444, airflow=3333)


def test_without_memory_every_port_is_free_and_its_own() -> None:
    ports = choose_ports(WantedPorts(), None)

    assert len({ports.postgres, ports.s3, ports.airflow}) == 3
    assert all(is_port_free(port) for port in (ports.postgres, ports.s3, ports.airflow))


def test_airflow_gets_another_port_where_the_usual_one_is_taken() -> None:
    with socket.socket() as holder:
        if is_port_free(8080):
            holder.bind((LOOPBACK, 8080))
            holder.listen()

        assert choose_ports(WantedPorts(), None).airflow != 8080


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
