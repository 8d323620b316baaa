-- at 2025-04-19T05:00:00Z: a log file of 27 March is found, and one of the first quarter was counted twice
UPDATE version_downloads SET downloads = downloads + 100 + version_id WHERE date = '2025-03-27';
INSERT INTO version_downloads VALUES (30, '2025-01-05', 12);
UPDATE version_downloads SET downloads = downloads / 2 WHERE date = '2025-02-14' AND downloads > 1;

-- at 2025-04-20T06:00:00Z: a version is removed with its downloads, and another gets those of a day
DELETE FROM version_downloads WHERE version_id = 9;
UPDATE version_downloads SET version_id = 28 WHERE version_id = 3 AND date = '2025-01-20';
