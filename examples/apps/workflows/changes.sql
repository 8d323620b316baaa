-- at 2025-05-10T10:00:00Z: runs that waited for days end, one of them badly
UPDATE execution SET status = 'success', stopped_at = started_at + interval '49 hours'
WHERE status = 'waiting' AND started_at < '2025-05-08Z';
UPDATE execution SET status = 'error' WHERE id = (SELECT max(id) FROM execution
    WHERE stopped_at - started_at = interval '49 hours');

-- at 2025-05-10T11:00:00Z: old runs are deleted, by a mark and for good
UPDATE execution SET deleted_at = '2025-05-10T11:00Z' WHERE workflow_id = 'wf-4' AND started_at < '2025-05-03Z';
DELETE FROM execution WHERE workflow_id = 'wf-7' AND status = 'error';

-- at 2025-05-11T00:10:00Z: a queue delivers runs of an hour long ago, and the day ends
INSERT INTO execution (workflow_id, mode, status, started_at, stopped_at)
SELECT 'wf-2', 'webhook', 'success', at, at + interval '3.5 seconds'
FROM generate_series('2025-05-02T17:58Z'::timestamptz, '2025-05-02T18:20Z', '77 seconds') at;

-- at 2025-05-15T00:10:00Z: four more days end, and the five minutes of more than ten days ago go
-- kept runs_minutely 2025-05-05
UPDATE execution SET status = 'error' WHERE workflow_id = 'wf-9' AND started_at >= '2025-05-13T12:00Z';
