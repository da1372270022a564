"""The server answers this machine only, and Ctrl-C is how it ends."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading

import gallery_fakes as fake
import pytest

from separatrix.lab import UsageError
from separatrix.lab.gallery import serve


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site" / "walk").mkdir(parents=True)
    (tmp_path / "site" / "index.html").write_text("front")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "site"


@pytest.fixture
def served(folder):
    with serve.server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answer(server, path="/", host=None):
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response.status, content


def test_it_listens_on_the_loopback_interface_only(served):
    assert served.server_address[0] == "127.0.0.1"
    assert served.socket.getsockname()[0] == "127.0.0.1"
    assert serve.address(served) == f"http://127.0.0.1:{served.server_address[1]}/"
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for other in others:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((other, served.server_address[1]), timeout=2)


def test_it_serves_files_and_lists_no_folder(served):
    assert answer(served) == (200, "front")
    assert answer(served, "/walk/")[0] == 404
    assert answer(served, "/nothing.html")[0] == 404


@pytest.mark.parametrize("path", ["/../secret.txt", "/%2e%2e/secret.txt", "/walk/../../secret.txt", "//secret.txt"])
def test_nothing_outside_the_site_is_served(served, path):
    assert "secret" not in answer(served, path)[1]


@pytest.mark.parametrize("host", ["example.org", "example.org:8000", "127.0.0.1.example.org", "0.0.0.0", ""])
def test_a_page_that_pretends_to_be_this_one_is_refused(served, host):
    assert answer(served, host=host)[0] == 403


def test_localhost_is_this_machine(served):
    port = served.server_address[1]
    assert [answer(served, host=host)[0] for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}")] == [
        200
    ] * 3
    assert answer(served, host="localhost:1")[0] == 403


def test_a_port_in_use_is_one_sentence(folder, served):
    with pytest.raises(UsageError, match="choose another one"):
        serve.server(folder, served.server_address[1])


@pytest.fixture
def command(tmp_path):
    fake.run(tmp_path / "runs" / "walk" / "aa")
    return [sys.executable, "-m", "separatrix", "gallery", str(tmp_path / "runs")]


def test_the_command_builds_and_says_where(command, tmp_path):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path / 'runs' / 'gallery' / 'index.html'}\n"
    assert done.stderr.splitlines()[-1] == "1 study, 1 run, 0 sweeps."


def test_ctrl_c_ends_the_server_with_exit_code_0(command):
    with subprocess.Popen(
        [*command, "--serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        address = process.stdout.readline().strip()
        host, port = address.removeprefix("http://").rstrip("/").split(":")
        connection = http.client.HTTPConnection(host, int(port))
        connection.request("GET", "/walk/index.html")
        assert b"A made-up study" in connection.getresponse().read()
        connection.close()
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err


def test_the_command_refuses_a_port_in_use_before_it_writes(command, served, tmp_path):
    done = subprocess.run(
        [*command, "--serve", "--port", str(served.server_address[1])], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs" / "gallery").exists()
