-- Cancels our own statements on the backends whose transactions are ours at this moment. Behind a pooler
-- a backend serves others as soon as our transaction has ended: the name, which a transaction sets for
-- itself, and the state say whether it still does.
SELECT pg_catalog.pg_cancel_backend(pid)
FROM pg_catalog.pg_stat_activity
WHERE pid = ANY ('{pids}'::int[])
  AND state = 'active'
  AND application_name LIKE 'tallymark %'
  AND pid <> pg_catalog.pg_backend_pid()
