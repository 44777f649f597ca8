"""A password never shows, however an address is written."""

import pytest

from pipeline.errors import redacted
from pipeline.storage import addresses


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:s3cret@host/db",
        "postgresql+psycopg://user:s3cret@host:5432/db?sslmode=require",
        "postgresql://host/db?user=user&password=s3cret",
        "postgresql://user:wo%40s3cret@host/db",
        "mysql+pymysql://user:s3cret@host/db",
        "https://user:s3cret@tracking.example.org",
    ],
)
def test_a_password_is_hidden(address: str) -> None:
    for word in (address, f"sweep.storage={address}", f"++sweep.storage={address}"):
        printed = addresses.public(word)
        assert "s3cret" not in printed
        assert "***" in printed
        assert "host" in printed or "tracking.example.org" in printed
    password = "wo@s3cret" if "%40" in address else "s3cret"
    message = f"no answer from {address} with the password {password}"
    assert "s3cret" not in addresses.without_secrets(message, address)


@pytest.mark.parametrize("address", ["sqlite:////a/b.db", "mlruns", "http://127.0.0.1:5000"])
def test_what_has_no_password_is_shown_as_it_is(address: str) -> None:
    assert addresses.public(address) == address
    assert redacted("finetune.cut=none") == "finetune.cut=none"


def test_why_a_database_does_not_answer() -> None:
    refused = addresses.unreachable("postgresql+psycopg://user:s3cret@127.0.0.1:9/db")
    assert "refused" in refused
    assert "s3cret" not in refused
    assert "\n" not in refused
    absent = addresses.unreachable("mysql+pymysql://user:s3cret@127.0.0.1/db")
    assert "driver is not installed" in absent
    assert addresses.unreachable("sqlite://") == ""
