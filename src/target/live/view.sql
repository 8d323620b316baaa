CREATE VIEW {view} AS
SELECT {stored}, coalesce(__t.bucket < {complete}, false) AS complete
FROM {table} __t LEFT JOIN tallymark.coverage __c ON __c.rollup = {rollup}
UNION ALL
SELECT {stored}, false FROM (SELECT __d.*{generated} FROM {function}() __d) __t
