from __future__ import annotations

import django_gomq
from django_gomq import testing

API = {
    "Broker",
    "Consumer",
    "ConsumerManager",
    "Event",
    "Message",
    "Receipt",
    "Retry",
    "aemit",
    "brokers",
    "consumer",
    "emit",
    "emit_many",
    "emit_model_events",
    "emit_on_signal",
    "get_broker",
}
# What a handler raises to say what it wants.
WISHES = {"BatchFailed", "Reject", "RetryLater"}
ERRORS = {
    "BackendUnavailableError",
    "BrokerClosedError",
    "ConfigurationError",
    "DecodeError",
    "EncodeError",
    "GoMQError",
    "MessageError",
    "MessageTooLargeError",
    "NoConsumerError",
    "NotRunningError",
    "PublishError",
    "PublishTimeoutError",
    "PublishUnknownError",
    "QueueFullError",
}

TEST_KIT = {
    "Ack",
    "CapturedEvents",
    "DeadLettered",
    "Dropped",
    "Gomq",
    "GomqTestMixin",
    "HandledMessage",
    "InlineEvents",
    "LiveBus",
    "Outcome",
    "RetryAfter",
    "assert_emitted",
    "assert_listening",
    "assert_not_emitted",
    "assert_nothing_emitted",
    "call",
    "capture",
    "inline",
    "live",
}


def test_the_public_names_are_those_of_the_design() -> None:
    assert set(django_gomq.__all__) == API | WISHES | ERRORS
    assert len(django_gomq.__all__) == len(set(django_gomq.__all__))


def test_every_public_name_can_be_had() -> None:
    missing = [name for name in django_gomq.__all__ if not hasattr(django_gomq, name)]

    assert missing == []


def test_the_names_of_the_test_kit_are_those_of_its_page() -> None:
    assert set(testing.__all__) == TEST_KIT
    assert [name for name in testing.__all__ if not hasattr(testing, name)] == []


def test_every_error_has_the_one_root() -> None:
    strays = [
        name
        for name in ERRORS
        if not issubclass(getattr(django_gomq, name), django_gomq.GoMQError)
    ]

    assert strays == []
