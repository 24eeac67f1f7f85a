"""psycopg: by password, by directory token, and what is refused."""

import os

import psycopg
from outcome import attempt, end, equal

NAME, PASSWORD, TOKEN = os.environ["DB_NAME"], os.environ["DB_PASSWORD"], os.environ["DB_TOKEN"]
ROLE = os.environ["DB_ROLE"]
HOST = f"{NAME}.postgres.database.azure.com"


def connect(**more):
    options = {"host": HOST, "user": "arcadmin", "password": PASSWORD, "dbname": "arc_hack", "sslmode": "verify-full"}
    return psycopg.connect(**{**options, "connect_timeout": 20, **more})


def one(connection, statement, *values):
    with connection, connection.cursor() as cursor:
        return cursor.execute(statement, values).fetchone()[0]


def refused(words, **more):
    try:
        connect(**more).close()
    except psycopg.OperationalError as error:
        if words not in str(error):
            raise
        return
    raise AssertionError("it was let in")


attempt("a password", lambda: equal(one(connect(), "SELECT current_user"), "arcadmin"))
attempt("the user's longer form", lambda: equal(one(connect(user=f"arcadmin@{NAME}"), "SELECT %s::int", 7), 7))
attempt("a token", lambda: equal(one(connect(user=ROLE, password=TOKEN), "SELECT current_user"), ROLE))
attempt("a wrong password", lambda: refused("password authentication failed", password="Wrong-Antelope!"))
attempt("a token for another role", lambda: refused("password authentication failed", password=TOKEN))
attempt("a password for a principal", lambda: refused("must be an access token", user=ROLE))
attempt("no TLS", lambda: refused("SSL connection is required", sslmode="disable", user=f"arcadmin@{NAME}"))


def many_rows():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE t (a int, b text)")
        with cursor.copy("COPY t FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number, "x" * 100))
        equal(cursor.execute("SELECT count(*), sum(a) FROM t").fetchone(), (20_000, 199_990_000))


def cancelled():
    connection = connect()
    try:
        import threading

        threading.Timer(0.5, connection.cancel).start()
        connection.execute("SELECT pg_sleep(30)")
    except psycopg.errors.QueryCanceled:
        return
    finally:
        connection.close()
    raise AssertionError("it was not cancelled")


attempt("many rows", many_rows)
attempt("a query is cancelled", cancelled)
end()
