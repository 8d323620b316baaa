-- Properties that could make a table of Tallymark hold other rows than those written to it. If the
-- relation is missing, the statement returns no row. Each text names what was found, or is NULL. What
-- a partition has counts like what the table has.
SELECT c.relkind::text AS kind,
       c.relpersistence::text AS persistence,
       EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS has_children,
       (SELECT d.partdefid::regclass::text FROM pg_partitioned_table d
        WHERE d.partrelid = c.oid AND d.partdefid <> 0) AS default_partition,
       ARRAY(SELECT p.oid::regclass::text FROM pg_class p
             WHERE p.oid = ANY (parts.oids) AND p.relpersistence = 'u' ORDER BY 1) AS unlogged_partitions,
       row_security_active(c.oid) AS is_filtered,
       -- BEFORE ROW triggers can change a row or drop it. Other triggers act after the fact.
       (SELECT min(quote_ident(t.tgname)) FROM pg_trigger t
        WHERE t.tgrelid = ANY (c.oid || parts.oids) AND NOT t.tgisinternal AND t.tgenabled <> 'D'
          AND t.tgtype & 3 = 3) AS trigger,
       (SELECT min(quote_ident(r.rulename)) FROM pg_rewrite r
        WHERE r.ev_class = c.oid AND r.ev_enabled <> 'D' AND r.rulename <> '_RETURN') AS rule,
       (SELECT min(quote_ident(k.conname)) FROM pg_constraint k
        WHERE k.conrelid = ANY (c.oid || parts.oids) AND k.contype IN ('c', 'f', 'x')) AS restriction
FROM pg_class c
CROSS JOIN LATERAL (
    SELECT ARRAY(SELECT i.inhrelid FROM pg_inherits i
                 WHERE i.inhparent = c.oid AND c.relkind = 'p') AS oids
) parts
WHERE c.oid = to_regclass({relation})
