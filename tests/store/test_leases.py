import os
import signal
import time

import pytest

from guda_cli.store import LeaseBusy, action_key
from tests.store.inside import live_leases

KEY = action_key("train", 1, {}, {})
HOLD = """
import sys
from guda_cli.store import Store
store = Store.open(sys.argv[1])
with store.lease(sys.argv[2], stale_after=float(sys.argv[3])):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


def hold(python, store, stale_after=30.0):
    child = python(HOLD, store.root, KEY, stale_after)
    assert child.stdout.readline() == "held\n"
    return child


def tell(child):
    child.stdin.write("\n")
    child.stdin.flush()


def test_another_process_is_kept_out_until_release(store, python):
    child = hold(python, store)
    with pytest.raises(LeaseBusy) as caught, store.lease(KEY, wait=False):
        pass
    assert caught.value.holder["pid"] == child.pid
    assert str(child.pid) in caught.value.message
    assert [lease["key"] for lease in live_leases(store)] == [KEY]
    tell(child)
    assert child.stdout.readline() == "released\n"
    with store.lease(KEY, wait=False):
        assert live_leases(store)[0]["pid"] == os.getpid()
    assert live_leases(store) == []


def test_waiting_is_said_once_and_ends_with_the_holder(store, python):
    child = hold(python, store)
    waited = []

    def on_wait(holder):
        waited.append(holder["pid"])
        tell(child)

    with store.lease(KEY, poll=0.01, on_wait=on_wait):
        assert waited == [child.pid]


def test_a_killed_holder_is_replaced_at_once(store, python):
    child = hold(python, store)
    child.send_signal(signal.SIGKILL)  # not waited for: a zombie is dead, too
    deadline = time.monotonic() + 10
    while live_leases(store) and time.monotonic() < deadline:
        time.sleep(0.01)
    with store.lease(KEY, wait=False):
        assert live_leases(store)[0]["pid"] == os.getpid()


def test_a_stopped_heart_goes_stale(store, python):
    child = hold(python, store, stale_after=0.5)
    child.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    with store.lease(KEY, poll=0.02, stale_after=0.5):
        assert 0.2 < time.monotonic() - start < 10
        # The old holder wakes up, beats once more and leaves: the new lease is not its to remove.
        child.send_signal(signal.SIGCONT)
        tell(child)
        assert child.stdout.readline() == "released\n"
        assert live_leases(store)[0]["pid"] == os.getpid()


def test_a_beating_heart_keeps_the_lease(store, python):
    hold(python, store, stale_after=0.5)
    time.sleep(1.2)
    with pytest.raises(LeaseBusy), store.lease(KEY, wait=False, stale_after=0.5):
        pass


def test_a_reused_pid_is_not_the_holder(store, monkeypatch):
    real = os.getpid()
    with store.lease(KEY):
        path = store.root / "leases" / f"{KEY}.json"
        text = path.read_text()
        monkeypatch.setattr("guda_cli.store.leases._process", lambda pid: ("S", 1 if pid == real else 2))
        assert live_leases(store) == []
        with store.lease(KEY, wait=False):
            assert path.read_text() != text


def test_a_holder_on_another_machine_lives_by_its_heartbeat(store):
    path = store.root / "leases" / f"{KEY}.json"
    path.write_text('{"pid": 999999999, "host": "elsewhere", "boot": "b", "space": "s", "stale_after": 5.0}')
    with pytest.raises(LeaseBusy), store.lease(KEY, wait=False, stale_after=5.0):
        pass
    past = time.time() - 6
    os.utime(path, (past, past))
    with store.lease(KEY, wait=False, stale_after=5.0):
        pass


def test_an_unreadable_lease_is_held_until_it_is_old(store):
    path = store.root / "leases" / f"{KEY}.json"
    path.write_text("garbage")
    with pytest.raises(LeaseBusy), store.lease(KEY, wait=False):
        pass
    past = time.time() - 60
    os.utime(path, (past, past))
    with store.lease(KEY, wait=False):
        pass


def test_one_taker_of_a_stale_lease_wins(store, python):
    code = """
import sys, time
from guda_cli.store import Store, LeaseBusy
store = Store.open(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    try:
        with store.lease(line.strip(), wait=False):
            print("won", flush=True)
            sys.stdin.readline()
    except LeaseBusy:
        print("busy", flush=True)
        sys.stdin.readline()
    print("done", flush=True)
"""
    children = [python(code, store.root) for _ in range(3)]
    for child in children:
        child.stdout.readline()
    for n in range(15):
        key = action_key("race", 1, {"n": n}, {})
        path = store.root / "leases" / f"{key}.json"
        path.write_text('{"pid": 1, "host": "gone"}')
        os.utime(path, (1, 1))
        for child in children:
            child.stdin.write(key + "\n")
            child.stdin.flush()
        answers = sorted(child.stdout.readline().strip() for child in children)
        assert answers == ["busy", "busy", "won"]
        for child in children:
            tell(child)
        for child in children:
            assert child.stdout.readline() == "done\n"


def test_a_failing_body_releases(store):
    with pytest.raises(RuntimeError), store.lease(KEY):
        raise RuntimeError
    assert live_leases(store) == []
    assert not list((store.root / "tmp").iterdir())
