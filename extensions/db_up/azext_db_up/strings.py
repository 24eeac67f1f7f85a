"""Connection strings. Pure text; nothing is asked of anyone."""

import re
from urllib.parse import quote

PORT = 5432

# Words of these signs mean themselves in a shell, typed as well as expanded from a variable. `!` only at the end:
# followed by a word it asks an interactive bash for an older command.
PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./^{}-]+!*")
# A list or a range between braces becomes several words where it is typed.
SEVERAL = re.compile(r"\{.*(,|\.\.).*\}")


def conninfo(**values):
    """libpq's `name='value'` form."""
    escaped = {name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in values.items()}
    return " ".join(f"{name}='{value}'" for name, value in escaped.items())


def uri(scheme, host, database, user, password):
    return f"{scheme}://{quote(user, '')}:{quote(password, '')}@{host}:{PORT}/{quote(database, '')}?sslmode=require"


def psql_command(host, database, user, password):
    """A command that connects when it is run as `$psql_cmd`, unquoted, and when it is typed.

    A shell takes no assignment from an expanded variable, hence `env`. It keeps the password out of psql's
    arguments, which every user of the machine may read. A password that a shell would change is percent-encoded in
    a URI instead. Without a password psql asks for it.
    """
    words = (host, database, user, password)
    if password is not None and not all(PLAIN.fullmatch(word) and not SEVERAL.search(word) for word in words):
        return f"psql {uri('postgresql', host, database, user, password)}"
    secret = "" if password is None else f"env PGSSLMODE=require PGPASSWORD={password} "
    return f"{secret}psql --host={host} --port={PORT} --username={user} --dbname={database}"


def connection_strings(host, database, user, password):
    """One string for each kind of client. `{password}` stands for a password that is not known."""
    shown = "{password}" if password is None else password
    libpq = conninfo(host=host, port=PORT, dbname=database, user=user, password=shown, sslmode="require")
    jdbc = f"jdbc:postgresql://{host}:{PORT}/{quote(database, '')}"
    query = f"user={quote(user, '')}&password={quote(shown, '{}')}&sslmode=require"
    return {
        "C++ (libpq)": libpq,
        "ado.net": f"Server={host};Database={database};Port={PORT};User Id={user};Password={shown};Ssl Mode=Require;",
        "jdbc": f"{jdbc}?{query}",
        "node.js": uri("postgres", host, database, user, shown),
        "php": libpq,
        "psql_cmd": psql_command(host, database, user, password),
        "python": libpq,
        "ruby": libpq,
        "webapp": f"Database={database}; Data Source={host}; User Id={user}; Password={shown}",
    }
