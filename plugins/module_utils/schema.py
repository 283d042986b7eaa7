"""Which migrations a release knows, and which one the database needs its code to know. Pure.

A contract migration takes away what older code still needs, so it raises the database's floor: the oldest migration
that code must know. Both are read from the migrations' source when a release is built and stand in its manifest, so
whoever plans knows them of every release without asking a host or the database.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

RAISING = "raise_floor"


class SchemaError(Exception):
    """What is wrong with the migrations, in one line."""


@dataclass(frozen=True)
class Schema:
    """`revisions` are a release's migrations, each after those that it builds on; `floor` is what they leave behind."""

    revisions: tuple[str, ...] = ()
    floor: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"revisions": list(self.revisions), "floor": self.floor}


@dataclass(frozen=True)
class Migration:
    name: str
    revision: str
    after: tuple[str, ...]
    floors: tuple[str, ...]


def schema_from(raw: object) -> Schema | None:
    """What to_dict() gave; None where nothing is known, as of a release that was built before this was noted."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("revisions"), Sequence):
        return None
    return Schema(tuple(str(revision) for revision in raw["revisions"]), str(raw.get("floor") or ""))


def schema_of(sources: Mapping[str, bytes]) -> Schema:
    """The schema of a release, from its files: Alembic's are the Python files in a directory `versions`."""
    found = []
    for name in sorted(sources):
        path = PurePosixPath(name)
        if path.suffix == ".py" and path.parent.name == "versions":
            migration = read_migration(name, sources[name])
            if migration:
                found.append(migration)
    return schema_of_migrations(in_order(found))


def read_migration(name: str, source: bytes) -> Migration | None:
    """A migration, or None of a file that is something else."""
    if b"down_revision" not in source:
        return None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise SchemaError(f"{name} is no Python: {error}") from error
    assigned: dict[str, object] = {}
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else ()
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
                assigned[target.id] = literal(value)
    revision, after = assigned.get("revision"), assigned.get("down_revision")
    if not isinstance(revision, str):
        return None
    before = (after,) if isinstance(after, str) else tuple(after) if isinstance(after, list | tuple) else ()
    return Migration(name, revision, tuple(str(one) for one in before), tuple(floors_in(name, tree)))


def floors_in(name: str, tree: ast.Module) -> Iterable[str]:
    """What the calls of raise_floor() name; what they name must be readable without running them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) == RAISING:
            value = literal(node.args[0]) if len(node.args) == 1 and not node.keywords else None
            if not isinstance(value, str):
                raise SchemaError(f'{name}: {RAISING}() takes one revision, written out, such as {RAISING}("0003")')
            yield value


def called(node: ast.Call) -> str:
    function = node.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def literal(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def in_order(migrations: Sequence[Migration]) -> list[Migration]:
    """Each after those that it builds on."""
    left = {migration.revision: migration for migration in migrations}
    ordered: list[Migration] = []
    while left:
        ready = [one for one in left.values() if not any(before in left for before in one.after)]
        if not ready:
            raise SchemaError(f"the migrations {', '.join(sorted(left))} build on one another in a circle")
        for one in ready:
            ordered.append(left.pop(one.revision))
    return ordered


def schema_of_migrations(migrations: Sequence[Migration]) -> Schema:
    revisions = tuple(migration.revision for migration in migrations)
    floor = ""
    for number, migration in enumerate(migrations):
        for named in migration.floors:
            if named not in revisions[: number + 1]:
                raise SchemaError(f"{migration.name}: {RAISING}({named!r}) names no migration up to its own")
            if floor and revisions.index(named) < revisions.index(floor):
                raise SchemaError(
                    f"{migration.name}: {RAISING}({named!r}) is below {floor!r}, which an earlier one set"
                )
            floor = named
    return Schema(revisions, floor)


def unfit(release: str, schema: Schema | None, floor: str) -> str:
    """Why RELEASE cannot run on a database with this floor, or nothing."""
    if not floor or (schema and floor in schema.revisions):
        return ""
    return (
        f"release {release} {knowledge(schema)}, and the database needs code that knows migration {floor}:"
        " deploy a newer release, or restore the database from before it needed that"
    )


def left_behind(release: str, schema: Schema | None, floor: str, by: str) -> str:
    """Why RELEASE, which serves, would break under the migrations of another that raise the floor, or nothing."""
    if not floor or (schema and floor in schema.revisions):
        return ""
    return (
        f"release {release} serves and {knowledge(schema)}, and the migrations of {by} leave a database that needs code"
        f" that knows {floor}: deploy first what knows it and does not contract yet"
    )


def knowledge(schema: Schema | None) -> str:
    if schema is None:
        return "does not say which migrations it knows"
    return f"knows migrations up to {schema.revisions[-1]}" if schema.revisions else "knows no migrations"


def raises(schema: Schema | None, floor: str) -> bool:
    """Whether a release's migrations leave a higher floor than the database has; it must know the one that it has."""
    if schema is None or not schema.floor or schema.floor == floor:
        return False
    order = schema.revisions
    return floor not in order or order.index(schema.floor) > order.index(floor)
