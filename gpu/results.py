"""Lines of results, appended to the file that RESULTS names, as soon as they are known."""
import json
import os


def append(line):
    with open(os.environ["RESULTS"], "a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def read(path):
    with open(path) as file:
        return [json.loads(line) for line in file if line.strip()]
