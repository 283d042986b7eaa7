import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.server_urls import (
    UrlError,
    database_of,
    password_in,
    redis_of,
)

DATABASE = {
    "host": "db.shop.io",
    "port": 5432,
    "name": "shop",
    "user": "app",
    "password": "hunter2",
    "sslmode": "require",
}
REDIS = {"host": "cache.shop.io", "port": 6379, "database": 0, "user": "app", "password": "hunter2", "tls": True}


@pytest.mark.parametrize(
    ("url", "different"),
    [
        ("postgresql://app:hunter2@db.shop.io/shop", {}),
        ("postgres://app:hunter2@db.shop.io:5433/shop?sslmode=verify-full", {"port": 5433, "sslmode": "verify-full"}),
        ("postgresql://app:p%40ss%2Fw%3Ard@db.shop.io/shop", {"password": "p@ss/w:rd"}),
        ("postgresql://app@db.shop.io/shop", {"password": ""}),
        ("postgresql://app:hunter2@[fd77::31]:5432/shop", {"host": "fd77::31"}),
    ],
)
def test_a_database_by_its_url(url, different):
    assert database_of(url) == {**DATABASE, **different}


@pytest.mark.parametrize(
    ("url", "different"),
    [
        ("rediss://app:hunter2@cache.shop.io:6379/0", {}),
        ("rediss://app:hunter2@cache.shop.io", {}),
        ("redis://app:hunter2@cache.shop.io/3", {"tls": False, "database": 3}),
        ("rediss://:hunter2@cache.shop.io/", {"user": ""}),
    ],
)
def test_a_redis_by_its_url(url, different):
    assert redis_of(url) == {**REDIS, **different}


def test_no_url_says_nothing():
    assert database_of("") == redis_of("") == {}


@pytest.mark.parametrize(
    ("read", "url", "told"),
    [
        (database_of, "mysql://app:hunter2@db.shop.io/shop", "must be of the form postgresql://"),
        (database_of, "hunter2", "must be of the form postgresql://"),
        (database_of, "postgresql://app:hunter2@/shop", "must be of the form postgresql://"),
        (database_of, "postgresql://app:hunter2@db.shop.io", "must name a user and a database"),
        (database_of, "postgresql://db.shop.io/shop", "must name a user and a database"),
        (database_of, "postgresql://app:hunter2@db1,db2/shop", "names several hosts"),
        (database_of, "postgresql://app:hunter2@db.shop.io:many/shop", "has a port that is none"),
        (database_of, "postgresql://app:hunt/er2@db.shop.io/shop", "has a port that is none"),
        (database_of, "postgresql://app:hunt#er2@db.shop.io/shop", "has a port that is none"),
        (database_of, "postgresql://app:hunter2@db.shop.io/shop#x", "has a # or a space"),
        (database_of, "postgresql://app:hunter2@db.shop.io/shop?sslmode=maybe", "has an unknown sslmode"),
        (database_of, "postgresql://app:hunter2@db.shop.io/shop?sslrootcert=/ca.pem", "set agent_database_ca_file"),
        (database_of, "postgresql://app:hunter2@db.shop.io/shop?target=hunter2", "has the option target"),
        (redis_of, "http://app:hunter2@cache.shop.io", "must be of the form rediss://"),
        (redis_of, "rediss://app:hunter2@cache.shop.io/shop", "must end with the number of a database"),
        (redis_of, "rediss://app:hunter2@cache.shop.io/0?a=hunter2", "takes no options"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(read, url, told):
    with pytest.raises(UrlError) as caught:
        read(url)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_password_in_a_url():
    assert password_in("postgresql://app:p%40ss@db.shop.io/shop") == "p@ss"
    assert password_in("rediss://cache.shop.io") == ""
    assert password_in("http://[") == "http://["
