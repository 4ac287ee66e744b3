"""Lists, extracts and hashes the members of a wheel (.whl) or source archive (.tar.gz).

list ARCHIVE               the files in it, one a line
extract ARCHIVE FOLDER     reads lines `member TAB path`, writes each member to FOLDER/path
sha256 FILE                the digest, in hex

Nothing of an archive is run. zipfile and gzip check their own checksums.
"""

import hashlib
import os
import sys
import tarfile
import zipfile

LARGE = 1 << 20


def members(archive):
    """Opens an archive as (its name -> a function that opens the member)."""
    if archive.endswith(".whl"):
        file = zipfile.ZipFile(archive)
        return {i.filename: (i.file_size, lambda i=i: file.open(i)) for i in file.infolist() if not i.is_dir()}
    file = tarfile.open(archive, "r:gz")
    return {i.name: (i.size, lambda i=i: file.extractfile(i)) for i in file if i.isfile()}


def extract(archive, folder):
    wanted = [line.rstrip("\n").split("\t") for line in sys.stdin]
    found = members(archive)
    total = sum(found[name][0] for name, _ in wanted)
    done, shown = 0, -1
    for name, path in wanted:
        size, open_member = found[name]
        path = os.path.join(folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open_member() as source, open(path, "wb") as target:
            while chunk := source.read(4 * LARGE):
                target.write(chunk)
                done += len(chunk)
                if sys.stderr.isatty() and done // LARGE != shown:
                    shown = done // LARGE
                    sys.stderr.write(f"\r  unpacking {shown} of {total // LARGE} MiB ")
                    sys.stderr.flush()
            if size > LARGE:
                target.flush()
                os.fsync(target.fileno())
    if shown >= 0:
        sys.stderr.write("\n")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(LARGE):
            digest.update(chunk)
    return digest.hexdigest()


def main(command, *args):
    if command == "list":
        print("\n".join(members(*args)))
    elif command == "extract":
        extract(*args)
    elif command == "sha256":
        print(sha256(*args))


main(*sys.argv[1:])
