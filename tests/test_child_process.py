import signal
import subprocess
import sys

import psutil

from jobs.settings import PROJECT_ROOT

PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from jobs.child_process import end_with_parent
with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


def test_a_child_at_work_ends_with_its_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            parent.send_signal(signal.SIGKILL)
            child.wait(timeout=30)
        finally:
            parent.kill()
            if child.is_running():
                child.kill()
