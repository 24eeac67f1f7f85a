"""Four writers of blobs in one container, and a reader of all that is in it.

`write FOLDER` makes blobs that stay, puts, overwrites and deletes others until the file FOLDER/stop is there, and prints
`steady` once it does so. What a blob holds follows from its name and from the turn in its metadata, so that `read`,
which may be of an older state, knows what must come back: it prints how many blobs it compared.
"""

import hashlib
import os
import random
import sys
import threading
import time

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient

STEADY, WRITERS, NAMES = 60, 4, 25
TURNS_BEFORE = 5
SIZES = [0, 1, 700, 4096, 65536, 65537, 262145, 1_500_000]
LARGE_BYTES = 20 * 1024 * 1024

service = BlobServiceClient(os.environ["BLOB_URL"], credential=os.environ["BLOB_KEY"])
container = service.get_container_client("writers")


def content(name, turn, size):
    return hashlib.shake_256(f"{name} {turn}".encode()).digest(size)


def put(name, turn, size):
    container.upload_blob(name, content(name, turn, size), overwrite=True, metadata={"turn": str(turn)})


def work(number, stop, turns, failures):
    chance = random.Random(number)
    turn = 0
    while not os.path.exists(stop):
        turn += 1
        name = f"writer {number}/{chance.randrange(NAMES)}"
        try:
            if chance.random() < 0.25:
                container.delete_blob(name)
            else:
                put(name, turn, chance.choice(SIZES))
        except ResourceNotFoundError:
            pass
        except Exception as error:  # told at the end
            failures.append(f"{name}: {error}")
            return
        turns[number] = turn


def write(folder):
    container.create_container()
    for number in range(STEADY):
        put(f"steady/{number}", 0, SIZES[number % len(SIZES)])
    put("steady/large", 0, LARGE_BYTES)
    turns, failures = [0] * WRITERS, []
    stop = os.path.join(folder, "stop")
    threads = [threading.Thread(target=work, args=(number, stop, turns, failures)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    while min(turns) < TURNS_BEFORE and not failures:
        time.sleep(0.01)
    print("steady", flush=True)
    for thread in threads:
        thread.join()
    sys.exit("; ".join(failures) or 0)


def read():
    steady = others = 0
    for found in container.list_blobs(include=["metadata"]):
        body = container.download_blob(found.name).readall()
        if len(body) != found.size or body != content(found.name, found.metadata["turn"], found.size):
            sys.exit(f"{found.name} is not what was put into it")
        if found.name.startswith("steady/"):
            steady += 1
        else:
            others += 1
    if steady != STEADY + 1:
        sys.exit(f"{steady} of the blobs that stay are there")
    print(others)


if sys.argv[1] == "write":
    write(sys.argv[2])
else:
    read()
