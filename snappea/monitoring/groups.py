"""One row of each group of tasks, found by jumps in an index."""


def first_of_each(rows: str, *order: str) -> str:
    """Return the query of `first(id)`, the ids of one row of each group, by an index and without a scan.

    It jumps from a group to the next one. `rows`: the condition of the index; `order`: its columns. A
    group has equal values in them.
    """
    columns = [column.partition(" ")[0] for column in order]
    ways = ["<" if column.endswith(" DESC") else ">" for column in order]
    jumps = []
    for place in range(len(order) - 1, -1, -1):
        alike = "".join(f" AND {column} = here.{column}" for column in columns[:place])
        beyond = f"{columns[place]} {ways[place]} here.{columns[place]}"
        jumps.append(f"""(SELECT id FROM snappea_task WHERE {rows}{alike} AND {beyond}
            ORDER BY {", ".join(order[place:])} LIMIT 1)""")
    return f"""WITH RECURSIVE first(id) AS (
        SELECT (SELECT id FROM snappea_task WHERE {rows} ORDER BY {", ".join(order)} LIMIT 1)
        UNION ALL SELECT coalesce({", ".join(jumps)})
        FROM first JOIN snappea_task AS here ON here.id = first.id)"""
