                            SELECT __place{inner_dimensions}{merged}
                            FROM (
                                SELECT {place} AS __place{grouped}{read}
                                FROM {table} t
                                WHERE t.bucket >= __places[1] AND t.bucket < __places[__steps + 1]{conditions}
                                UNION ALL
                                SELECT 1{nothing} WHERE {is_total}
                            ) r
                            GROUP BY __place{inner_dimensions}
