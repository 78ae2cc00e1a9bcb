"""Objects and indexes, in step whatever comes in which order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from countersign.kube.store import Store


def obj(name: str, version: int, namespace: str | None = "n", owner: str | None = "x") -> dict[str, Any]:
    spec = {} if owner is None else {"owner": owner}
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": "u", "resourceVersion": str(version)},
        "spec": spec,
    }


def by_owner(each: dict[str, Any]) -> list[str]:
    return [each["spec"]["owner"]]


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "drop"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([None, "n", "m"]),
        st.sampled_from([None, "x", "y"]),
    ),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(steps, steps)
def test_a_store_is_what_a_dict_would_be(before: list[Any], after: list[Any]) -> None:
    store, plain = Store(), {}
    for number, (what, name, namespace, owner) in enumerate([*before, *after]):
        if number == len(before):
            store.add_index("owner", by_owner)
        one = obj(name, number, namespace, owner)
        if what == "put":
            store.put(one)
            plain[namespace, name] = one
        else:
            store.drop(one)
            plain.pop((namespace, name), None)
    store.add_index("owner", by_owner)

    def names(found: list[dict[str, Any]]) -> list[str]:
        return sorted(f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in found)

    assert names(store.list(None)) == names(list(plain.values()))
    assert names(store.list("n")) == names([one for (namespace, _), one in plain.items() if namespace == "n"])
    for owner in ("x", "y"):
        expected = [one for one in plain.values() if one["spec"].get("owner") == owner]
        assert names(store.by_index("owner", owner)) == names(expected)
    assert all(store.get(name, namespace) is one for (namespace, name), one in plain.items())


def test_a_fresh_list_tells_only_what_differs() -> None:
    store = Store()
    store.replace([obj("same", 1), obj("changed", 1), obj("gone", 1)])

    changes = store.replace([obj("same", 1), obj("changed", 2), obj("new", 3)])

    assert [(kind, one["metadata"]["name"]) for kind, one in changes] == [
        ("DELETED", "gone"),
        ("MODIFIED", "changed"),
        ("ADDED", "new"),
    ]
    assert store.put(obj("new", 3)) is None
    assert store.drop(obj("gone", 1)) is None
