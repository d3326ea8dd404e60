from __future__ import annotations

import pickle

import pytest

from django_gomq.bus import errors
from django_gomq.bus.errors import GoMQError, MessageError, PublishError

# Dashboards and callers know errors by these: never change one.
CODES = {
    "GoMQError": "error",
    "ConfigurationError": "configuration",
    "PublishError": "refused",
    "NoConsumerError": "no_consumer",
    "QueueFullError": "queue_full",
    "PublishTimeoutError": "timeout",
    "BrokerClosedError": "closed",
    "NotRunningError": "not_running",
    "BackendUnavailableError": "unavailable",
    "PublishUnknownError": "unknown",
    "MessageError": "invalid_message",
    "EncodeError": "encode",
    "DecodeError": "decode",
    "MessageTooLargeError": "too_large",
}
ALL: list[type[GoMQError]] = [getattr(errors, name) for name in CODES]


def test_every_error_has_a_stable_code() -> None:
    found = {
        name: one.code
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, GoMQError)
    }

    assert found == CODES


def test_no_two_errors_share_a_code() -> None:
    assert len({one.code for one in ALL}) == len(ALL)


@pytest.mark.parametrize(
    ("root", "names"),
    [
        (
            PublishError,
            {
                "NoConsumerError",
                "QueueFullError",
                "PublishTimeoutError",
                "BrokerClosedError",
                "NotRunningError",
                "BackendUnavailableError",
                "PublishUnknownError",
            },
        ),
        (MessageError, {"EncodeError", "DecodeError", "MessageTooLargeError"}),
    ],
)
def test_a_family_of_errors_can_be_caught_at_once(
    root: type[GoMQError], names: set[str]
) -> None:
    family = {one.__name__ for one in ALL if issubclass(one, root)}

    assert family == {root.__name__, *names}


@pytest.mark.parametrize("kind", ALL)
def test_an_error_names_what_it_is_about(kind: type[GoMQError]) -> None:
    error = kind("It went wrong.", event="a.b", consumer="audit", broker="default")

    assert str(error) == "It went wrong."
    assert (error.event, error.consumer, error.broker) == ("a.b", "audit", "default")


def test_what_an_error_is_not_about_is_none() -> None:
    error = GoMQError("It went wrong.")

    assert (error.event, error.consumer, error.broker) == (None, None, None)


@pytest.mark.parametrize("kind", ALL)
def test_an_error_survives_the_way_to_another_process(kind: type[GoMQError]) -> None:
    error = kind("It went wrong.", event="a.b", consumer="audit", broker="default")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert str(copy) == "It went wrong."
    assert (copy.event, copy.consumer, copy.broker) == ("a.b", "audit", "default")
