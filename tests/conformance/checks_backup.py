"""A site of its own, in use: `arcadia backup` beside it, and `arcadia restore` into an empty directory."""

import os
import shutil
import signal
import subprocess

from checks_sdks import python
from harness import World, check, contains, equal, eventually

ACCOUNT, SERVER, MACHINE = "arcbackup1", "pg-backup", "backup-01"
PASSWORD = "Awesome-Antelope!"
ROWS = "SELECT count(*), sum(n) FROM kept WHERE text = md5(n::text)"


def psql(site, *statements):
    place = f"host={SERVER}.postgres.database.azure.com user=arcadmin dbname=postgres connect_timeout=20 sslmode=verify-full"
    commands = [word for statement in statements for word in ("-c", statement)]
    return site.run(["psql", "-X", "-A", "-t", "-q", *commands, place], env={"PGPASSWORD": PASSWORD})


def backup_folder(site, name):
    return os.path.join(site.folder, name)


def restore(site, backup, into, key=None):
    key = key or os.path.join(site.data, "root.key")
    return site.run([site.arcadia, "--data", os.path.join(site.folder, into), "restore", backup, "--root-key", key])


@check("backup: a site with a storage account, a database server and a machine")
def start(world):
    site = world.kept = World(world.keep)
    world.others.append(site)
    site.start("--offline")
    site.run_az("login", "-u", site.user, "-p", site.password).ok()
    site.machines.append(MACHINE)
    # Makes the resource group as well.
    site.program("machine", "create", MACHINE, "--connect").ok()
    site.run_az("storage", "account", "create", "-n", ACCOUNT, "-g", "arc-hack", "-l", "uksouth", "--sku", "Standard_LRS").ok()
    keys = site.run_az("storage", "account", "keys", "list", "-n", ACCOUNT, "-g", "arc-hack").json()
    site.blob_env = {"BLOB_URL": f"https://{ACCOUNT}.blob.core.windows.net", "BLOB_KEY": keys[0]["value"]}
    site.run_az(
        "postgres", "flexible-server", "create", "-g", "arc-hack", "-n", SERVER, "-l", "uksouth", "--admin-user",
        "arcadmin", "--admin-password", PASSWORD, "--tier", "Burstable", "--sku-name", "Standard_B1ms",
        "--storage-size", "32", "--public-access", "127.0.0.1", "--yes", timeout=300,
    ).ok()
    psql(
        site, "CREATE TABLE kept (n int PRIMARY KEY, text text)",
        "INSERT INTO kept SELECT n, md5(n::text) FROM generate_series(1, 20000) n",
    ).ok()


@check("backup: beside four writers of blobs and one of rows")
def backup(world):
    site = world.kept
    folder = backup_folder(site, "backup")
    command = python(site, "blob_writers.py", "write", site.folder)
    environment = {**site.env, **site.blob_env}
    writers = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    inserts = "INSERT INTO busy SELECT n, repeat('x', 500) FROM generate_series(1, 300) n; SELECT pg_sleep(0.02);"
    psql(site, "CREATE TABLE busy (n int, text text)").ok()
    rows = None
    try:
        equal(writers.stdout.readline(), "steady\n")
        rows = subprocess.Popen(
            ["psql", "-X", "-q", f"host={SERVER}.postgres.database.azure.com user=arcadmin dbname=postgres sslmode=verify-full"],
            env={**site.env, "PGPASSWORD": PASSWORD}, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        rows.stdin.write(inserts * 500)
        rows.stdin.close()
        done = site.program("backup", folder).ok()
        contains(done.out, SERVER, MACHINE, "blobs and blocks")
    finally:
        with open(os.path.join(site.folder, "stop"), "w", encoding="utf-8"):
            pass
        if rows:
            rows.send_signal(signal.SIGTERM)
            rows.wait()
        _, errors = writers.communicate(timeout=120)
    equal((writers.returncode, errors), (0, ""))
    equal(site.program("backup", folder).fails("is not empty").code, 1)


@check("backup: nothing in it is in the clear")
def sealed(world):
    site = world.kept
    folder = backup_folder(site, "backup")
    needles = [site.secret, site.password, "PRIVATE KEY", "arcadmin", "azuresu", "d41d8cd98f00b204"]
    needles.append("c4ca4238a0b923820dcc509a6f75849b")  # md5 of 1, a value in the table
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                found = file.read()
            equal([needle for needle in needles if needle.encode() in found], [])


@check("backup: a wrong key, a changed blob, a changed archive and a missing file are refused")
def refused(world):
    site = world.kept
    folder, bad = backup_folder(site, "backup"), backup_folder(site, "bad")
    wrong = backup_folder(site, "wrong.key")
    with open(wrong, "wb") as out:
        out.write(bytes(32))
    restore(site, folder, "refused", wrong).fails("not the root key of the site", code=1)
    shutil.copytree(folder, bad)
    paths = [os.path.join(root, name) for root, _, names in os.walk(bad) for name in names]
    segments, files = [[path for path in paths if part in path] for part in ("/segments/", "/files/")]
    archives = [path for path in paths if path.endswith(".sealed") and ("/postgres/" in path or "/machines/" in path)]
    equal((len(segments) > 0, len(files) > 0, len(archives)), (True, True, 2))
    largest = max(files, key=os.path.getsize)
    for path in [segments[0], largest, *archives]:
        with open(path, "rb") as file:
            good = file.read()
        for changed in (good[:40] + bytes([good[40] ^ 1]) + good[41:], good[:len(good) // 2], None):
            os.remove(path)
            if changed is not None:
                with open(path, "wb") as out:
                    out.write(changed)
            else:
                equal(os.path.exists(path), False)
            restore(site, bad, "refused").fails(code=1)
            equal(os.path.exists(backup_folder(site, "refused")), False)
            with open(path, "wb") as out:
                out.write(good)
    restore(site, bad, "whole").ok()
    restore(site, bad, "whole").fails("is not empty", code=1)
    for name in ("bad", "whole"):
        shutil.rmtree(backup_folder(site, name))


@check("backup: what was restored has every blob, row and machine of it")
def restored(world):
    site = world.kept
    before = site.on_machine(MACHINE, "azcmagent", "show", "-j").json()
    site.program("down").ok()
    restore(site, backup_folder(site, "backup"), "again").ok()
    site.former, site.data = site.data, backup_folder(site, "again")
    site.program("up", "--detach", "--offline").ok()
    site.env.update(site.program("env", "--admin", "--format", "json").json())
    found = site.run(python(site, "blob_writers.py", "read"), env=site.blob_env, timeout=300)
    equal(int(found.text()) > 0, True)
    eventually(lambda: equal(psql(site, ROWS).text(), "20000|200010000"), 60)
    equal(psql(site, "SELECT count(*) > 0 FROM busy WHERE length(text) <> 500").text(), "f")
    psql(site, "INSERT INTO kept VALUES (0, 'new')").ok()
    contains(site.program("machine", "list").text(), MACHINE)
    after = site.on_machine(MACHINE, "azcmagent", "show", "-j").json()
    equal([after[name] for name in ("resourceId", "vmId", "status")], [before[name] for name in ("resourceId", "vmId", "status")])
    token = "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fmanagement.azure.com"
    script = (
        f"path=$(curl -s -D - -o /dev/null -H Metadata:true '{token}' | tr -d '\\r' | sed -n 's/.*realm=//p');"
        f" curl -s -H Metadata:true -H \"Authorization: Basic $(cat $path)\" '{token}' | jq -r .token_type"
    )
    equal(site.on_machine(MACHINE, "sh", "-c", script).text(), "Bearer")
    contains(site.program("audit", "verify").text(), "unbroken")


@check("backup: of a site that is stopped, and never started since it was restored")
def stopped(world):
    site = world.kept
    site.program("down").ok()
    first, second = backup_folder(site, "first"), backup_folder(site, "second")
    site.program("backup", first).ok()
    restore(site, first, "never").ok()
    started, site.data = site.data, backup_folder(site, "never")
    site.program("backup", second).ok()
    site.data = started
    restore(site, second, "last").ok()
    site.data = backup_folder(site, "last")
    site.program("up", "--detach", "--offline").ok()
    eventually(lambda: equal(psql(site, "SELECT text FROM kept WHERE n = 0").text(), "new"), 60)
    site.run(python(site, "blob_writers.py", "read"), env=site.blob_env, timeout=300).ok()
    # The machines of all these sites are stopped with them; one is left to be deleted.
    site.program("machine", "delete", MACHINE).ok()
    site.machines.remove(MACHINE)
