"""Whose a public key is, and what apt's answers mean."""

import base64
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import signed_package as package
from ansible_collections.agentfleet.vm.plugins.module_utils.signed_package import Away, PackageError

# Made by GnuPG for these tests; nobody has the private halves any more. The first has a subkey that signs.
FIRST, SECOND = "A7AA7A888CAF4622843793E10615D579F64C738E", "01956DCEE14A54325992F4484116509CADB13FC0"
ED25519 = b"""\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEaw3ONhYJKwYBBAHaRw8BAQdAErUnOVInFsmgf7iWPVGD8hA8oxcHXYo4lUO5
ng1AOaC0BUZpcnN0iJAEExYIADgWIQSnqnqIjK9GIoQ3k+EGFdV59kxzjgUCaw3O
NgIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRAGFdV59kxzjiewAQChV4et
QCf/6Zv++xVQvG3YE2J200ljM+R1EYOixmqOiQEAvWD7g8iSZRFAG2ZkTPsAUzl7
8JB6joEHDgHKqu2ACAC4MwRrDc42FgkrBgEEAdpHDwEBB0Dryt5DU3xHHa8VQwRw
3/qAydFi5lcmb6FvUDCEvZDkAIjvBBgWCAAgFiEEp6p6iIyvRiKEN5PhBhXVefZM
c44FAmsNzjYCGwIAgQkQBhXVefZMc452IAQZFggAHRYhBJT+1xR42HmSpvDUNYjJ
b+bYoW6NBQJrDc42AAoJEIjJb+bYoW6NScQBAO3M3Q50PoetZxCupns1KUSTO+/5
1T9GO7mtjrn/YC1gAQDccXaXk9N2z2tjC4UGMJqgXXlG1FRFhfz5M3Agr/n4AlRw
AQDn5JtDtWJIhqscTlO3PWIsT2kxFK2qVycwhfbP5tQoKwD/WBZ/ZQpKXyyW2qSK
UN0XSAmGItAd0LS4rpY4hWxlCwE=
=UwXN
-----END PGP PUBLIC KEY BLOCK-----
"""
RSA = b"""\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mQENBGsNzjYBCADxwTm57QG5yChOzdc3pbcqgTN+pbMm4WotqdQWeqRuzdnH5ttO
holcJ6GJxYb0bXqqb83Ld/XoYxRoeGaPZO/4rgcdyBv2N9tRYf7zNr10d6GFm5bP
jb2KKU1UtGmeL3Rte4emd1V9uyIuvAEOwpPUBQgrHoB8bPk+MGCPINj0F53wBcVl
QbsXJFIPpmuWMr7nZ7rL3ep9FVx0s/1lH8HyYlPYT1CRnUvD977b4mB4qZx6M3vv
ypUvWuCJildi63g/4LdxEvugSVgBRE795ylpMGQ0Qzkp6umpDikgo0mYCyYTlnS3
3rtYWSOl/Agzm28Qa46vghGr4gWKhxgKRuUVABEBAAG0BlNlY29uZIkBTgQTAQoA
OBYhBAGVbc7hSlQyWZL0SEEWUJytsT/ABQJrDc42AhsDBQsJCAcCBhUKCQgLAgQW
AgMBAh4BAheAAAoJEEEWUJytsT/Az+EH/1RVzPdGlgZuyELsxRpGHSSUzCOegFaG
kcxwYnkbdmXhjgv7FPbTLu1UkjDQ3wFuvmiNCseFtTtTsT0f1czhU32TD4gKK6Pc
kfMAY9S/TThsAQqhpaLDELaExYsyZHUtJ+nKd5N1VbVEdIln9M7JPMB5rYvgOxPe
gI1/e4iRFDH1cleSQRyhj6RWx6C6YytOyDbQ/MjfSGUtIA7Y3e6WsN+T0PqaSqaq
/jku3P70rjgfbo9YLoSONMKtfMkm4E6Pq4y1niS+L4ZF2hQbImvagzvx/8oUigVO
qlSLByslBLCUibK/mFxvqRFeA7hBVq496CHVJSl6zNbszIE58/abLvg=
=hnc/
-----END PGP PUBLIC KEY BLOCK-----
"""
REPOSITORY = "http://192.0.2.1:8088"


def binary(armored):
    body = armored.decode().partition("\n\n")[2].rpartition("\n=")[0]
    return base64.b64decode(body)


@pytest.mark.parametrize("form", [lambda key: key, binary, lambda key: key.replace(b"\n", b"\r\n")])
@pytest.mark.parametrize(("key", "name"), [(ED25519, FIRST), (RSA, SECOND)])
def test_a_keys_fingerprint_is_that_of_its_primary_key(form, key, name):
    assert package.fingerprints(form(key)) == [name]


def test_several_keys_in_one_file_are_all_seen():
    assert package.fingerprints(ED25519 + RSA) == package.fingerprints(binary(ED25519) + binary(RSA)) == [FIRST, SECOND]


@pytest.mark.parametrize("key", [b"", b"<html>not found</html>", b"\x80", ED25519[:90], binary(RSA)[:1]])
def test_what_is_no_key_has_no_fingerprint(key):
    with pytest.raises(PackageError, match="the key is no public key"):
        package.refuse_key(key, FIRST, "the key")


@pytest.mark.parametrize("wanted", [FIRST, FIRST.lower(), "A7AA 7A88 8CAF 4622 8437  93E1 0615 D579 F64C 738E"])
def test_the_key_that_is_named_is_taken_however_it_is_written(wanted):
    package.refuse_key(ED25519, wanted, "the key")


@pytest.mark.parametrize("key", [RSA, ED25519 + RSA])
def test_another_key_or_one_beside_it_is_refused(key):
    with pytest.raises(PackageError, match=f"{SECOND} and not {FIRST}: find out whether it was replaced"):
        package.refuse_key(key, FIRST, "the key")


def test_apt_reads_nothing_of_the_hosts_own_lists():
    words = package.options(Path("/tmp/x"))
    assert words[::2] == ["-o"] * (len(words) // 2)
    assert {
        "Dir::Etc::sourcelist=/tmp/x/source.list",
        "Dir::Etc::sourceparts=/tmp/x/parts",
        "Dir::State::lists=/tmp/x/lists",
        "Dir::Cache=/tmp/x/cache",
    } <= set(words)
    line = package.source(REPOSITORY, "stable", "main", Path("/tmp/x/key.asc"))
    assert line == f"deb [signed-by=/tmp/x/key.asc] {REPOSITORY} stable main\n"


# As apt 2.6 and 3.0 write them.
GONE = f"""\
Err:1 {REPOSITORY} stable InRelease
  Could not connect to 192.0.2.1:8088 (192.0.2.1). - connect (111: Connection refused)
Reading package lists...
E: Failed to fetch {REPOSITORY}/dists/stable/InRelease  Could not connect to 192.0.2.1:8088 (192.0.2.1).
E: Some index files failed to download. They have been ignored, or old ones used instead.
"""
WITHOUT = f"E: The repository '{REPOSITORY} stable Release' does not have a Release file.\n"
DISTRUSTED = (
    f"E: GPG error: {REPOSITORY} stable InRelease: The following signatures couldn't be verified because the public key"
    " is not available: NO_PUBKEY 963FA27710458545\n",
    f"E: GPG error: {REPOSITORY} stable InRelease: The following signatures were invalid: BADSIG 0615D579F64C738E\n",
    "  The following signatures were invalid: EXPKEYSIG 963FA27710458545 Nobody\n",
    f"E: The repository '{REPOSITORY} stable InRelease' is not signed.\n",
    f"W: OpenPGP signature verification failed: {REPOSITORY} stable InRelease: /usr/bin/sqv returned an error\n",
)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (GONE, "Could not connect to 192.0.2.1:8088 (192.0.2.1)."),
        (WITHOUT, f"The repository '{REPOSITORY} stable Release' does not have a Release file."),
        ("", "apt says nothing"),
    ],
)
def test_a_repository_that_does_not_answer_is_away(output, told):
    problem = package.refused(output, REPOSITORY)
    assert isinstance(problem, Away)
    assert str(problem) == told


@pytest.mark.parametrize("output", DISTRUSTED)
def test_a_repository_that_another_key_signed_is_refused(output):
    problem = package.refused(GONE + output, REPOSITORY)
    assert isinstance(problem, PackageError)
    assert str(problem).startswith(f"{REPOSITORY} is not signed by the key that was given: ")


MADISON = f"""\
   grafana |     12.2.0 | {REPOSITORY} stable/main amd64 Packages
   grafana |     12.1.0 | {REPOSITORY} stable/main amd64 Packages
   grafana |     12.1.0 | {REPOSITORY} stable/main i386 Packages
"""


def test_the_newest_version_is_chosen_unless_one_is_wanted():
    there = package.versions(MADISON)
    assert there == ["12.2.0", "12.1.0"]
    assert package.chosen("grafana", "", there, REPOSITORY) == "12.2.0"
    assert package.chosen("grafana", "12.1.0", there, REPOSITORY) == "12.1.0"


def test_a_version_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(PackageError, match=f"{REPOSITORY} has no grafana 9; it has 12.2.0, 12.1.0"):
        package.chosen("grafana", "9", package.versions(MADISON), REPOSITORY)
    with pytest.raises(PackageError, match=f"{REPOSITORY} has no package grafana"):
        package.chosen("grafana", "", package.versions("N: Unable to locate package grafana"), REPOSITORY)
