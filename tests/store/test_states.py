import pytest

from guda_cli.store import Store, action_key

KEY = action_key("train", 1, {}, {})


def test_the_newest_state_is_loaded(store):
    assert store.load_state(KEY) is None
    for step in range(5):
        store.save_state(KEY, step, b"state %d" % step)
        assert store.load_state(KEY) == (step, b"state %d" % step)


def test_only_two_states_are_kept(store):
    for step in range(5):
        store.save_state(KEY, step, b"x" * 100)
    assert len(list((store.root / "states").iterdir())) == 2


def test_going_back_in_steps_is_allowed(store):
    store.save_state(KEY, 9, b"nine")
    store.save_state(KEY, 1, b"one")
    assert store.load_state(KEY) == (1, b"one")


def test_the_previous_state_is_the_fallback(store):
    store.save_state(KEY, 1, b"one")
    store.save_state(KEY, 2, b"two")
    (store.root / "states" / f"{KEY}.state").unlink()
    assert store.load_state(KEY) == (1, b"one")


def test_dropped_states_are_gone(store):
    store.save_state(KEY, 1, b"one")
    store.save_state(KEY, 2, b"two")
    store.drop_state(KEY)
    store.drop_state(KEY)
    assert store.load_state(KEY) is None


def test_documents_are_replaced_whole(store):
    assert store.get_document("current") is None
    store.set_document("current", {"recipe": "a", "extra": [1, 2]})
    store.set_document("current", {"recipe": "b"})
    assert store.get_document("current") == {"recipe": "b"}


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "x" * 200])
def test_wrong_document_names_are_refused(store, name):
    with pytest.raises(ValueError):
        store.set_document(name, {})


def test_documents_hold_only_json(store):
    with pytest.raises(TypeError):
        store.set_document("a", {"x": {1}})
    assert store.get_document("a") is None


def test_two_holders_of_one_action_do_not_end_each_other(store, monkeypatch):
    """After a take-over both save: between the look and the rename of one, the other moves the file."""
    from pathlib import Path

    other = Store.open(store.root)
    store.save_state(KEY, 1, b"one")
    before, interrupted = Path.replace, []

    def replace(self, target):
        if self.suffix == ".state" and "states" in self.parts and not interrupted:
            interrupted.append(self)
            other.save_state(KEY, 2, b"two of the other")
            other.drop_state(KEY)
        return before(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    store.save_state(KEY, 3, b"three")
    assert interrupted
    assert store.load_state(KEY) == (3, b"three")


SAVES = """
import sys
from guda_cli.store import Store
store = Store.open(sys.argv[1])
for step in range(300):
    store.save_state(sys.argv[2], step, b"state" * 100)
    if step % 50 == 0:
        store.drop_state(sys.argv[2])
"""


def test_many_holders_of_one_action(store, python):
    children = [python(SAVES, store.root, KEY) for _ in range(3)]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    assert store.load_state(KEY)[0] == 299
