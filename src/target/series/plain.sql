                            SELECT {place} AS __place{columns}
                            FROM {table} t
                            WHERE t.bucket >= __places[1] AND t.bucket < __places[__steps + 1]{conditions}
