#!/usr/bin/env python3
"""Asks every question of a document about API events of the files in a folder, as a reader would with DuckDB.

usage: ask_duckdb.py DOCUMENT FOLDER NAMESPACE

Every ```sql block of the document is run; 'events/*/*/*.ndjson.zst' stands for the files, 'shop' for the namespace. A
question that has no answer in a folder in which something happened fails, unless its first line says `-- may be empty`.
"""

import re
import sys

import duckdb


def main() -> int:
    document, folder, namespace = sys.argv[1:4]
    with open(document, encoding="utf-8") as file:
        questions = re.findall(r"```sql\n(.*?)```", file.read(), re.DOTALL)
    if len(questions) < 10:
        print(f"only {len(questions)} questions in {document}")
        return 1
    connection = duckdb.connect()
    for question in questions:
        asked = question.replace("events/*/*/*.ndjson.zst", f"{folder}/*/*/*.ndjson.zst").replace("'shop'", f"'{namespace}'")
        rows = connection.execute(asked).fetchall()
        if question.startswith("create "):
            continue
        print(f"{question.strip().splitlines()[0]}: {len(rows)} rows, {rows[:1]}")
        if not rows and not question.startswith("-- may be empty"):
            print("that is no answer")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
